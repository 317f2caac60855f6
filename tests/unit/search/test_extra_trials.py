"""Baselines and replicates: what is trained beside the candidates, when, as what, and who does not
see it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.untrained import FACTS, Driver, report, spec
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from nas.profiling.memory.fused_attention import attention_is_fused
from nas.search.baselines import CHANNELS, PUBLISHED, equalized
from nas.search.budget import Budget
from nas.study.roles import BASELINE, CANDIDATE, REPLICATE, role_of
from search_spaces.layout import Layout

WITH = {"search.baselines": True}


def drive(driver: Driver, until: int = 100) -> list[int]:
    """Train everything that is handed out; a layout's score follows from its text."""
    numbers: list[int] = []
    while len(numbers) < until and (assignment := driver.study.ask()):
        numbers.append(assignment.number)
        for epoch in (1, 2):
            if not driver.study.report(
                assignment.number, report(score_of(str(assignment.layout)), epoch)
            ):
                break
    return numbers


def score_of(layout: str) -> float:
    return int.from_bytes(layout.encode()[:9], "big") % 997 / 1000


def roles(driver: Driver) -> list[tuple[str, int]]:
    driver.study.table.read()
    return [(role_of(trial), trial.user_attrs["replicate"]) for trial in driver.study.table.trials]


def test_candidates_come_first_then_baselines_then_the_best_again(tmp_path: Path):
    driver = Driver(
        tmp_path,
        memory=InMemoryStorage(),
        **WITH,
        **{"search.trials": 5, "search.replicates": 3, "search.seed": 7},
    )
    drive(driver)
    expected = [(CANDIDATE, 0)] * 5 + [
        (BASELINE, replicate) for replicate in (0, 1, 2) for _ in range(3)
    ]
    assert roles(driver) == expected + [
        (REPLICATE, replicate) for replicate in (1, 2) for _ in range(3)
    ]
    assert driver.study.finished
    assert driver.study.ended == 5
    assert driver.study.stop_reason is None
    trials = driver.study.table.trials
    best = sorted(trials[:5], key=lambda trial: -trial.value)[:3]
    assert [trial.user_attrs["layout"] for trial in trials[14:17]] == [
        trial.user_attrs["layout"] for trial in best
    ]
    assert all(trial.user_attrs["seed"] == 7 + trial.user_attrs["replicate"] for trial in trials)
    assert all(trial.state == TrialState.COMPLETE for trial in trials)
    told = [event for event in driver.events if event.kind == "complete"]
    assert [(event.role, event.replicate) for event in told] == roles(driver)
    assert told[5].what.endswith("(baseline)")
    assert told[-1].what.endswith("(seed 3)")


def test_the_best_are_not_known_while_a_candidate_trains(tmp_path: Path):
    driver = Driver(tmp_path, **{"search.trials": 2, "search.replicates": 2})
    driver.train(0.3)
    last = driver.study.ask()
    assert driver.study.ask() is None
    assert not driver.study.finished
    driver.study.report(last.number, report(0.4, 2))
    assert driver.study.ask().layout == last.layout


@pytest.mark.parametrize("binds", [False, True])
def test_a_baseline_is_as_wide_as_the_memory_of_the_space_allows(tmp_path: Path, binds: bool):
    search = Driver(tmp_path).study.budget
    needs = sorted(search.predicted_bytes(layout) for layout in search.space)
    if binds:
        memory = f"{needs[len(needs) // 2] / 2**20}MiB"
        search = Budget(spec(tmp_path, **{"budget.memory": memory}), FACTS)
    allowed = min(search.limit_bytes, needs[-1])
    found = equalized(search)
    assert [baseline.name for baseline in found] == list(PUBLISHED)
    for baseline, published in zip(found, PUBLISHED.values(), strict=True):
        wanted = Layout.parse(published)
        assert (baseline.layout.pattern, baseline.layout.depths) == (wanted.pattern, wanted.depths)
        stages = str(wanted).partition("@")[0]
        fitting = [
            c
            for c in CHANNELS[:10]  # the next has heads of 22 channels
            if search.predicted_bytes(Layout.parse(f"{stages}@{c}")) <= allowed
        ]
        assert baseline.layout.widths[0] == max(fitting)
        assert baseline.memory_predicted_bytes == search.predicted_bytes(baseline.layout) <= allowed


@pytest.mark.parametrize(
    ("text", "precision", "refused"),
    [
        # Channels of a head: the largest divisor of each width that is at most 32.
        ("T2-T2-T6-T2", "fp32", {88, 104, 120, 136, 152}),  # 22, 26, 30, 17, 19
        ("T2-T2-T6-T2", "bf16", {40, 56, 80, 88, 104, 112, 120, 136, 152}),  # 40: 20
        ("C3-C4-C6-C3", "bf16", set()),
        ("C2-C2-T12-T4", "bf16", set()),  # third stages are multiples of 32
    ],
)
def test_baselines_have_widths_whose_attention_a_gpu_runs_fused(
    text: str, precision: str, refused: set[int]
):
    found = {
        channels
        for channels in range(8, 161, 8)
        if not attention_is_fused(Layout.parse(f"{text}@{channels}"), precision)
    }
    assert found == refused


def test_a_published_backbone_at_the_budget_stays_as_it_is(tmp_path: Path):
    facts = replace(FACTS, batch_shape=(4, 3, 800, 1344))
    like = Driver(
        tmp_path, facts, **{"space": "paper", "budget.like": "T2-T2-T6-T2", "recipe.name": "paper"}
    )
    found = {baseline.name: str(baseline.layout) for baseline in equalized(like.study.budget)}
    assert found["Swin-T"] == "T2-T2-T6-T2"
    assert found["C2-C2-T12-T4"] == "C2-C2-T12-T4"


def test_a_search_that_starts_from_weights_has_no_baselines(tmp_path: Path):
    driver = Driver(tmp_path, **WITH, **{"search.trials": 1, "recipe.weights": "resnet50.pth"})
    drive(driver)
    assert roles(driver) == [(CANDIDATE, 0)]


def test_a_baseline_that_was_a_candidate_is_not_trained_twice(tmp_path: Path):
    driver = Driver(tmp_path, **WITH, **{"search.trials": 1})
    swin = equalized(driver.study.budget)[0].layout
    stages = [{"kinds": [stage.kind], "depths": [stage.depth]} for stage in swin.stages]
    space = {"name": "one", "stages": stages, "channels": [swin.widths[0]]}
    again = Driver(tmp_path, **WITH, **{"study": "one", "space": space, "search.trials": 1})
    drive(again)
    layouts = [trial.user_attrs["layout"] for trial in again.study.table.trials]
    assert layouts[0] == str(swin)
    assert len(set(layouts)) == len(layouts) == 3


def test_a_baseline_of_a_dead_driver_is_adopted_as_what_it_was(tmp_path: Path):
    first = Driver(tmp_path, **WITH, **{"search.trials": 1, "search.replicates": 2})
    drive(first, until=4)
    left = first.study.ask()
    assert roles(first)[-1] == (BASELINE, 1)
    second = Driver(tmp_path, **WITH, **{"search.trials": 1, "search.replicates": 2})
    second.study._lease.of_others = set  # its driver is dead
    adopted = second.study.ask()
    assert (adopted.number, adopted.layout, adopted.seed) == (left.number, left.layout, 1)
    second.study.report(adopted.number, report(0.5, 2))
    drive(second)
    assert roles(second) == [(CANDIDATE, 0)] + [(BASELINE, 0)] * 3 + [(BASELINE, 1)] * 3 + [
        (REPLICATE, 1)
    ]


def test_a_baseline_that_fails_is_tried_again_and_then_given_up(tmp_path: Path):
    driver = Driver(tmp_path, **WITH, **{"search.trials": 1, "run.retries": 1})
    drive(driver, until=1)
    for _ in range(2):
        assignment = driver.study.ask()
        driver.study.fail(assignment.number, "broken")
    drive(driver)
    states = [trial.state.name for trial in driver.study.table.trials]
    assert states == ["COMPLETE", "FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert driver.study.finished


def test_a_pruner_stops_no_baseline_and_no_replicate(tmp_path: Path):
    more = {
        "search.trials": 8,
        "search.pruner": "median",
        "search.replicates": 2,
        "recipe.warmup_steps": 1,
    }
    driver = Driver(tmp_path, memory=InMemoryStorage(), **WITH, **more, **{"recipe.epochs": 6})
    while assignment := driver.study.ask():
        value = 0.5 if role_of(driver.trial(assignment.number)) == CANDIDATE else 0.0
        value -= assignment.number / 100 if value else 0.0
        for epoch in range(1, 7):
            if not driver.study.report(assignment.number, report(value, epoch, epochs=6)):
                break
    states = {role: set() for role in (CANDIDATE, BASELINE, REPLICATE)}
    for trial in driver.study.table.trials:
        states[role_of(trial)].add(trial.state)
    assert states == {
        CANDIDATE: {TrialState.COMPLETE, TrialState.PRUNED},
        BASELINE: {TrialState.COMPLETE},
        REPLICATE: {TrialState.COMPLETE},
    }


@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [
        ("random", "none"),
        ("tpe", "none"),
        ("gp", "none"),
        ("nsga2", "none"),
        ("tpe", "hyperband"),
        ("gp", "hyperband"),
    ],
)
def test_samplers_do_not_see_what_they_did_not_choose(tmp_path: Path, sampler: str, pruner: str):
    """A search that goes on after its baselines suggests what it would have suggested without
    them.
    """
    found = []
    for beside in (True, False):
        storage = InMemoryStorage()
        for trials in (12, 13):
            flags = {
                "search.sampler": sampler,
                "search.trials": trials,
                "search.baselines": beside,
                "study": "same",
            }
            flags |= {"search.pruner": pruner, "recipe.epochs": 2, "recipe.warmup_steps": 1}
            driver = Driver(tmp_path, memory=storage, **flags, **{"search.replicates": 1 + beside})
            drive(driver)
        found.append([trial.user_attrs["layout"] for trial in driver.study.table.candidates])
    assert found[0][:13] == found[1][:13]
