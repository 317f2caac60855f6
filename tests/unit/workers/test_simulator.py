"""Tables of trainings, and searches that replay them on a simulated clock."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from helpers.tables import REQUEST, SMALL, plain, run, spec_of, table_of
from optuna.trial import TrialState

from nas.errors import StudyError
from nas.search.open_search import open_search
from search_spaces.layout import Layout
from workers.simulator.backend import Simulation, Timeline, simulate
from workers.simulator.tabular_benchmark import TabularBenchmark

FIVE = ("C1-C1-C1-C1@16", "C1-C1-C1-T1@16", "C1-C1-T1-T1@16", "C1-T1-T1-T1@16", "T1-T1-T1-T1@16")


def scheduled(layout: Layout):
    """Epochs of 10, 20, 5, 10 and 20 s for the five; the last one learns nothing."""
    if str(layout) not in FIVE:
        return plain(layout)
    place = FIVE.index(str(layout))
    maps = (0.0,) * 4 if place == 4 else tuple((5 - place) / 50 * epoch for epoch in range(1, 5))
    return [run(str(layout), maps, (10.0, 20.0, 5.0, 10.0, 20.0)[place])]


def test_a_schedule_computed_by_hand(tmp_path: Path):
    # Two workers, four epochs each; the median of four completed trials prunes, from the first
    # epoch on (there is no warm-up).   worker 1: trial 0 from 0 to 40, trial 2 from 40 to 60, trial
    # 3 from 60 to 100   worker 2: trial 1 from 0 to 80, trial 4 from 80: its first epoch at 100 At
    # 100 trial 3 is heard before trial 4, which then has four completed ones to be compared with.
    table = table_of(scheduled)
    request = spec_of(
        table, tmp_path, **{"search.trials": 5, "search.pruner": "median", "search.try": list(FIVE)}
    )
    simulation = simulate(request, table, workers=2)
    heard = [(moment.at_s, moment.event.number, moment.event.kind) for moment in simulation.moments]
    starts = [(at_s, number) for at_s, number, kind in heard if kind == "started"]
    ends = [(at_s, number, kind) for at_s, number, kind in heard if kind in ("complete", "pruned")]
    assert starts == [(0, 0), (0, 1), (40, 2), (60, 3), (80, 4)]
    assert ends == [
        (40, 0, "complete"),
        (60, 2, "complete"),
        (80, 1, "complete"),
        (100, 3, "complete"),
        (100, 4, "pruned"),
    ]
    assert simulation.clock_s == 100
    assert simulation.busy_s == 40 + 80 + 20 + 40 + 20
    assert simulation.search.study.trials[4].intermediate_values == {1: 0}


def test_one_worker_takes_one_after_the_other(tmp_path: Path):
    table = table_of(scheduled)
    flags = {"search.trials": 5, "search.try": list(FIVE), "search.pruner": "none"}
    simulation = simulate(spec_of(table, tmp_path, **flags), table, workers=1)
    assert simulation.clock_s == simulation.busy_s == 40 + 80 + 20 + 40 + 80
    assert [moment.at_s for moment in simulation.moments if moment.event.kind == "started"] == [
        0,
        40,
        120,
        140,
        180,
    ]


def test_more_workers_than_trials_and_the_whole_space(tmp_path: Path):
    table = table_of()
    few = simulate(spec_of(table, tmp_path, **{"search.trials": 3}), table, workers=50)
    assert few.clock_s < few.busy_s
    small = {
        "name": "small",
        "stages": [{"kinds": ["C", "T"], "depths": [1]}] * 4,
        "channels": [16, 24],
        "conditions": ["C never after T"],
    }
    flags = {"search.trials": 1000, "search.sampler": "random"}
    request = spec_of(table, tmp_path, **{"space": small, **flags})
    everything = simulate(request, table, workers=3)
    assert everything.search.stop_reason == "space exhausted"
    layouts = list(request.search_space())
    assert everything.busy_s == sum(table.run_of(layout, 0).elapsed_s[-1] for layout in layouts)
    assert {trial.user_attrs["layout"] for trial in everything.search.study.trials} == set(
        map(str, layouts)
    )


def test_a_training_that_failed_fails_again_at_its_time(tmp_path: Path):
    def broken(layout: Layout):
        if str(layout) != FIVE[0]:
            return plain(layout)
        return [
            run(FIVE[0], (0.1,), fail_reason="NonFiniteLoss: in step 9", elapsed_s=(10.0, 13.0))
        ]

    table = table_of(broken)
    request = spec_of(
        table, tmp_path, **{"search.trials": 1, "search.try": [FIVE[0]], "run.retries": 0}
    )
    simulation = simulate(request, table, workers=1)
    first, second = simulation.search.study.trials
    assert first.state == TrialState.FAIL
    assert first.user_attrs["fail_reason"] == "NonFiniteLoss: in step 9"
    assert second.state == TrialState.COMPLETE
    assert [m.at_s for m in simulation.moments if m.event.number == 0] == [0, 10, 13]


def test_a_training_that_converged_early_is_complete(tmp_path: Path):
    table = table_of(lambda layout: [run(str(layout), (0.1, 0.2))])
    simulation = simulate(spec_of(table, tmp_path, **{"search.trials": 1}), table, workers=1)
    (trial,) = simulation.search.study.trials
    assert (trial.state, trial.value, trial.user_attrs["epochs"]) == (TrialState.COMPLETE, 0.2, 2)


@pytest.mark.parametrize(
    "sampler",
    ["tpe", *(pytest.param(name, marks=pytest.mark.long) for name in ("random", "gp", "nsga2"))],
)
def test_the_storage_changes_nothing(tmp_path: Path, sampler: str):
    table = table_of()
    flags = {
        "search.trials": 12,
        "search.sampler": sampler,
        "search.pruner": "median",
        "search.prune_at": "cost",
    }
    request = spec_of(table, tmp_path, **flags)
    in_memory = simulate(request, table, workers=3)
    timeline = Timeline()
    opened = open_search(request, table.facts, [timeline])
    in_sql = Simulation(opened, table, 3, timeline)
    in_sql.run()
    assert (tmp_path / "nas.db").exists()

    def outcome(simulation: Simulation) -> list[tuple]:
        trials = simulation.search.study.trials
        known = [
            {k: v for k, v in trial.user_attrs.items() if k != "checkpoint"} for trial in trials
        ]
        return [
            (
                t.number,
                t.params,
                t.state,
                t.values,
                t.intermediate_values,
                t.constraints,
                attributes,
            )
            for t, attributes in zip(trials, known, strict=True)
        ]

    assert outcome(in_memory) == outcome(in_sql)
    assert len({trial.state for trial in in_sql.search.study.trials}) == 2  # some were pruned
    assert [(m.at_s, m.event.number, m.event.kind) for m in in_memory.moments] == [
        (m.at_s, m.event.number, m.event.kind) for m in in_sql.moments
    ]


def test_the_seed_decides(tmp_path: Path):
    table = table_of()

    def suggested(seed: int) -> list[str]:
        request = spec_of(
            table, tmp_path, **{"search.trials": 12, "search.sampler": "tpe", "search.seed": seed}
        )
        return [
            trial.user_attrs["layout"]
            for trial in simulate(request, table, workers=4).search.study.trials
        ]

    assert suggested(3) == suggested(3) != suggested(4)


def test_a_table_read_back_is_the_same(tmp_path: Path):
    table = table_of()
    broken = run(FIVE[0], (0.1,), seed=7, fail_reason="NonFiniteLoss: x", elapsed_s=(1.0, 2.0))
    table = dataclasses.replace(table, runs=(*table.runs, broken))
    table.write(tmp_path / "table.json")
    assert TabularBenchmark.read(tmp_path / "table.json") == table
    assert (tmp_path / "table.json").read_text().count("\n") < len(
        table.runs
    ) + 200  # a run is a line


def test_a_layout_without_the_seed_has_one_of_its_runs(tmp_path: Path):
    table = table_of(
        lambda layout: [run(str(layout), (0.1 * (seed + 1),), seed=seed) for seed in (0, 1, 2)]
    )
    layout = Layout.parse(FIVE[0])
    assert [table.run_of(layout, seed).seed for seed in (0, 1, 2)] == [0, 1, 2]
    drawn = [table.run_of(layout, seed).seed for seed in range(3, 53)]
    assert set(drawn) == {0, 1, 2}
    assert drawn == [table.run_of(layout, seed).seed for seed in range(3, 53)]
    assert table.mean_map(layout) == pytest.approx(0.2)


def test_unknown_layouts_are_refused(tmp_path: Path):
    table = table_of()
    with pytest.raises(
        StudyError, match="no run of C3-C1-C1-C1@16; it has 240 layouts of space 'tiny'"
    ):
        table.runs_of(Layout.parse("C3-C1-C1-C1@16"))
    wider = spec_of(table, tmp_path, **{"space": "paper", "budget.memory": "1TiB"})
    with pytest.raises(StudyError, match="the table has no run of"):
        simulate(wider, table, workers=1)


def test_a_search_that_trains_in_another_way_is_refused(tmp_path: Path):
    table = table_of()
    with pytest.raises(StudyError, match=r"in another way: recipe.epochs was 4, now 3"):
        simulate(spec_of(table, tmp_path, **{"recipe.epochs": 3}), table, workers=1)


@pytest.mark.parametrize("content", ["", "{}", '{"runs": [{"layout": "C1"}]}', "[]"])
def test_what_is_no_table_is_refused(tmp_path: Path, content: str):
    path = tmp_path / "table.json"
    path.write_text(content)
    with pytest.raises(StudyError, match="is no table of trainings"):
        TabularBenchmark.read(path)
    with pytest.raises(StudyError, match="is no table of trainings"):
        TabularBenchmark.read(tmp_path / "none.json")


def test_the_request_of_a_table_is_complete():
    table = table_of()
    assert table.spec({}).recipe.epochs == REQUEST["recipe"]["epochs"]
    assert table.spec({"study": "again"}).to_dict()["recipe"] == table.request["recipe"]


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_search_that_prunes_at_equal_cost(tmp_path: Path, pruner: str):
    table = table_of(request={**REQUEST, "space": SMALL})
    flags = {"search.trials": 17, "search.pruner": pruner, "search.prune_at": "cost"}
    study = simulate(spec_of(table, tmp_path, **flags), table, workers=2).search.study
    assert len(study.trials) == 16
    pruned = [trial for trial in study.trials if trial.state == TrialState.PRUNED]
    assert 0 < len(pruned) < 16
    for trial in study.trials:
        epochs = list(range(1, len(trial.intermediate_values) + 1))
        assert (
            list(trial.intermediate_values) == epochs
        )  # of its own, whatever the pruner was shown
        assert (len(epochs) == 4) == (trial.state == TrialState.COMPLETE)
