"""The study as the only truth: who is next, what a state means, what is written."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from helpers.untrained import FACTS, Driver, report
from optuna.trial import TrialState

from nas.artifacts.paths import CHECKPOINT, DETECTIONS, LAST_WEIGHTS, WEIGHTS
from nas.errors import StudyError
from nas.search.budget import Budget
from nas.study import schema as attributes
from nas.study.leaderboard import leaderboard, pareto_front, trial_row
from nas.study.provenance import public_spec
from nas.utils.formatting import GIB


def test_a_search_from_start_to_end(tmp_path: Path):
    driver = Driver(tmp_path)
    for value in (0.2, 0.4, 0.3):
        assert not driver.study.finished
        driver.train(value)
    assert driver.study.finished
    assert driver.study.ask() is None
    assert driver.kinds() == ["started", "epoch", "epoch", "complete"] * 3
    assert [trial.number for trial in leaderboard(driver.study.study)] == [1, 2, 0]
    assert [driver.trial(0).intermediate_values[epoch] for epoch in (1, 2)] == [0.2, 0.2]
    layouts = [trial.user_attrs["layout"] for trial in driver.study.study.trials]
    assert len(set(layouts)) == 3


def test_every_attribute_is_there_and_documented(tmp_path: Path):
    driver = Driver(tmp_path)
    written = driver.trial(driver.train(0.4)).user_attrs
    others = {"fail_reason", "infeasible_reason", "origin", "test_map", "test_map_50"}
    others.add("worker_deaths")
    others.add("latency_ms")  # nobody asked for it
    masks = {name for name in attributes.TRIAL if "map_segm" in name}
    assert set(written) == set(attributes.TRIAL) - others - masks
    later = {
        "nas_memory_correction",
        "nas_proxy_check",
        "nas_cost_predicted",
        "nas_baselines",
        "nas_latency",
        "nas_time",
        "nas_commands",
        "nas_winner",
    }  # nothing was measured, and nothing has a time limit
    assert set(driver.study.study.user_attrs) == set(attributes.STUDY) - later
    assert written["map"] == written["map_50"] == 0.4
    assert written["map_small"] is None
    assert written["map_per_class"] == {"a": 0.4, "b": None}
    assert (written["epochs"], written["train_s"], written["gpu_s"]) == (2, 20.0, 0.0)
    assert written["memory_predicted_gib"] > 0
    parts = written["memory_parts_gib"]
    assert sum(parts.values()) == pytest.approx(written["memory_predicted_gib"], abs=1e-3)
    assert {"parameters", "stage_1", "stage_2", "stage_3", "stage_4"} <= set(parts)
    assert written["memory_peak_gib"] is None
    assert written["params"] > 10_000
    assert written["flops"] > 1_000_000
    with pytest.raises(KeyError, match="not documented"):
        driver.study.table.set(driver.study.study.ask(), nonsense=1)


def test_constraints_are_written_under_both_keys(tmp_path: Path):
    driver = Driver(tmp_path)
    trial = driver.trial(driver.train())
    excess = trial.constraints["memory_predicted"]
    assert excess == pytest.approx(trial.user_attrs["memory_predicted_gib"] - 16, abs=1e-4)
    assert trial.system_attrs["constraints"] == [excess]
    measured = driver.trial(driver.train(memory_peak_bytes=3 * GIB))
    both = [measured.constraints[name] for name in ("memory_predicted", "memory_peak")]
    assert sorted(measured.system_attrs["constraints"]) == sorted(both)
    assert measured.user_attrs["memory_peak_gib"] == 3


def test_measured_excess_is_infeasible_never_best_never_again(tmp_path: Path):
    driver = Driver(tmp_path, **{"budget.memory": "1GiB", "search.trials": 2})
    number = driver.train(0.9, memory_peak_bytes=2 * GIB)
    trial = driver.trial(number)
    assert trial.state == TrialState.PRUNED
    assert "needs 2.0 GiB, the budget is 1.0 GiB" in trial.user_attrs["infeasible_reason"]
    assert trial.constraints["memory_peak"] == 1.0
    assert trial_row(trial).state == "INFEASIBLE"
    assert trial.intermediate_values == {1: 0.9}
    driver.train(0.1)
    assert [best.number for best in leaderboard(driver.study.study)] == [1]
    assert driver.study.finished  # both count
    assert driver.kinds()[-4:] == ["started", "epoch", "epoch", "complete"]
    assert "infeasible" in driver.kinds()


def test_several_objectives_have_a_front(tmp_path: Path):
    driver = Driver(tmp_path, **{"search.objectives": ["map", "memory", "fps"], "search.trials": 4})
    for value in (0.2, 0.4, 0.3, 0.1):
        driver.train(value, fps=50.0 if value == 0.1 else 20.0)
    study = driver.study.study
    assert [direction.name for direction in study.directions] == [
        "MAXIMIZE",
        "MINIMIZE",
        "MAXIMIZE",
    ]
    trials = study.trials
    for trial in trials:
        assert trial.values == [
            trial.user_attrs["map"],
            trial.user_attrs["memory_predicted_gib"],
            trial.user_attrs["fps"],
        ]
        assert not trial.intermediate_values
    front = pareto_front(study)
    for trial in trials:  # by the definition
        beaten = any(
            other.values != trial.values
            and other.values[0] >= trial.values[0]
            and other.values[1] <= trial.values[1]
            and other.values[2] >= trial.values[2]
            for other in trials
        )
        assert (trial.number in front) == (not beaten)
    assert {1, 3} <= front  # the best mAP, the fastest
    assert [trial.number for trial in leaderboard(study)] == [1, 2, 0, 3]
    with pytest.raises(
        StudyError, match=r"search.objectives was \['map', 'memory', 'fps'\], now \['map'\]"
    ):
        Driver(tmp_path)


def test_infeasible_with_several_objectives(tmp_path: Path):
    driver = Driver(
        tmp_path,
        **{"search.objectives": ["map", "memory"], "search.trials": 2, "budget.memory": "1GiB"},
    )
    number = driver.train(0.9, memory_peak_bytes=2 * GIB)
    assert driver.trial(number).state == TrialState.PRUNED
    driver.train(0.1, memory_peak_bytes=GIB // 2)
    assert pareto_front(driver.study.study) == {1}
    assert driver.study.finished


def test_an_older_study_without_newer_keys_goes_on(tmp_path: Path):
    driver = Driver(tmp_path)
    driver.train()
    known = driver.study.study.user_attrs["nas_spec"]
    del known["recipe"]["checkpointing"], known["search"]["objectives"]
    driver.study.study.set_user_attr("nas_spec", known)
    assert Driver(tmp_path).study.ended == 1


def test_measured_trials_correct_the_prediction(tmp_path: Path):
    """A card that takes 6 % and 0.2 GiB more than predicted, and a budget that a naive prediction
    would pass.
    """

    def on_the_card(traced_gib: float) -> float:
        return 1.06 * traced_gib + 0.2

    flags = {
        "space": "free",
        "search.trials": 10,
        "recipe": "tiny",
        "recipe.epochs": 1,
        "budget.memory": "16GiB",
    }
    driver = Driver(tmp_path, dataclasses.replace(FACTS, batch_shape=(4, 3, 320, 320)), **flags)
    off = []
    for _ in range(10):
        assignment = driver.study.ask()
        fresh = Budget(driver.spec, driver.study.facts)
        measured = on_the_card(fresh.predicted_bytes(assignment.layout) / GIB)
        off.append(abs(driver.study.budget.predicted_bytes(assignment.layout) / GIB / measured - 1))
        done = report(0.5, 1, 1, memory_peak_bytes=round(measured * GIB), device="a card")
        driver.study.report(assignment.number, done)
    assert off[0] > 0.06
    assert off[1] < off[0]
    assert max(off[-3:]) < 0.01
    kept = driver.study.study.user_attrs["nas_memory_correction"]
    assert (kept["device"], kept["trials"]) == ("a card", 10)
    assert kept["scale"] == pytest.approx(1.06, abs=0.02)
    again = Driver(tmp_path, driver.study.facts, **{**flags, "search.trials": 11})
    assert again.study.budget.correction == driver.study.budget.correction


def test_failures_are_replaced_and_release_their_layout(tmp_path: Path):
    only = {"name": "one", "stages": [{"kinds": ["C"], "depths": [1]}] * 4, "channels": [16, 24]}
    driver = Driver(
        tmp_path,
        space=only,
        **{"search.trials": 2, "run.retries": 2, "recipe": "tiny", "recipe.epochs": 2},
    )
    failed = []
    for _ in range(6):
        assignment = driver.study.ask()
        driver.study.fail(assignment.number, "NonFiniteLoss: nan")
        failed.append(str(assignment.layout))
    assert {failed.count(text) for text in failed} == {3}  # once and two retries, each
    assert driver.study.ask() is None
    assert driver.study.finished
    assert driver.study.stop_reason == "space exhausted"
    assert driver.trial(0).state == TrialState.FAIL
    assert driver.trial(0).user_attrs["fail_reason"] == "NonFiniteLoss: nan"
    assert driver.study.ended == 0


def test_the_listed_layouts_and_no_others(tmp_path: Path):
    listed = ["C2-T1-T3-T1@16", "C1-C1-C1-C1@24", "T1-T1-T1-T1@16"]
    flags = {"search.try": listed, "search.try_only": True, "run.retries": 1}
    driver = Driver(tmp_path, **flags)
    driver.train()
    for _ in range(2):  # once and one retry, and nothing instead
        driver.study.fail(driver.study.ask().number, "broken")
    left_behind = driver.study.ask()
    again = Driver(tmp_path, **flags)
    assert (again.train(), left_behind.number) == (
        3,
        3,
    )  # the last one is gone on with, though nothing else is left
    assert again.study.ask() is None
    assert again.study.finished
    assert again.study.stop_reason == "search.try exhausted"
    trials = [(trial.user_attrs["layout"], trial.state.name) for trial in again.study.study.trials]
    assert trials == [
        (listed[0], "COMPLETE"),
        (listed[1], "FAIL"),
        (listed[1], "FAIL"),
        (listed[2], "COMPLETE"),
    ]
    assert again.study.refusals()["repeated"] == 0


def test_ten_failures_in_a_row_stop_the_search(tmp_path: Path):
    driver = Driver(tmp_path)
    for _ in range(9):
        driver.study.fail(driver.study.ask().number, "broken")
    driver.train()
    for _ in range(10):
        assert not driver.study.finished
        driver.study.fail(driver.study.ask().number, "broken")
    assert driver.study.finished
    assert driver.study.stop_reason == "10 candidates in a row failed, the last with: broken"


def test_the_space_to_its_end(tmp_path: Path):
    small = {"name": "s", "stages": [{"kinds": ["C", "T"], "depths": [1]}] * 4, "channels": [16]}
    driver = Driver(
        tmp_path, space=small, **{"search.trials": 100, "recipe": "tiny", "recipe.epochs": 2}
    )
    for _ in range(16):
        driver.train()
    assert driver.study.ask() is None
    assert driver.study.stop_reason == "space exhausted"
    assert driver.study.finished


def test_while_the_last_layouts_run_the_search_waits(tmp_path: Path):
    small = {"name": "s", "stages": [{"kinds": ["C"], "depths": [1]}] * 4, "channels": [16]}
    driver = Driver(
        tmp_path, space=small, **{"search.trials": 2, "recipe": "tiny", "recipe.epochs": 2}
    )
    first = driver.study.ask()
    assert driver.study.ask() is None
    assert not driver.study.finished
    driver.study.fail(first.number, "broken")
    assert driver.study.ask().layout == first.layout


def test_only_what_is_asked_for_runs_at_once(tmp_path: Path):
    driver = Driver(tmp_path)
    numbers = [driver.study.ask().number for _ in range(3)]
    assert numbers == [0, 1, 2]
    assert driver.study.running == 3
    assert driver.study.ask() is None
    assert not driver.study.finished


def test_the_median_pruner_stops_a_bad_candidate(tmp_path: Path):
    driver = Driver(
        tmp_path,
        **{
            "search.trials": 6,
            "search.pruner": "median",
            "recipe.epochs": 4,
            "recipe.warmup_steps": 0,
        },
    )
    for _ in range(5):
        assignment = driver.study.ask()
        for epoch in range(1, 5):
            driver.study.report(assignment.number, report(0.5, epoch, epochs=4))
    assignment = driver.study.ask()
    assert not driver.study.report(assignment.number, report(0.1, 1, epochs=4))
    trial = driver.trial(assignment.number)
    assert (trial.state, trial.value, trial.intermediate_values) == (
        TrialState.PRUNED,
        0.1,
        {1: 0.1},
    )
    assert driver.kinds()[-1] == "pruned"
    assert len(leaderboard(driver.study.study)) == 5
    assert driver.study.finished


def test_a_budget_that_nothing_fits_is_refused_with_the_nearest_figure(tmp_path: Path):
    with pytest.raises(
        StudyError,
        match=r"no layout of space 'tiny' fits into 0.001 GiB: the smallest is C1-C1-C1-C1@16 with",
    ):
        Driver(tmp_path, **{"budget.memory": "1MiB"})
    assert list(tmp_path.iterdir()) == []


def test_a_layout_to_try_that_does_not_fit_is_refused(tmp_path: Path):
    with pytest.raises(
        StudyError, match=r"search.try: T2-T2-T3-T2@24 needs 0\.\d+ GiB, the budget is 0.0391 GiB"
    ):
        Driver(tmp_path, **{"search.try": ["T2-T2-T3-T2@24"], "budget.memory": "40MiB"})


def test_budget_like_a_layout(tmp_path: Path):
    driver = Driver(tmp_path, **{"budget.like": "C1-C1-C1-T1@16", "search.trials": 40})
    for _ in range(5):
        driver.train()
    assert all(trial.constraints["memory_predicted"] <= 0 for trial in driver.study.study.trials)
    assert driver.study.study.user_attrs["nas_refusals"]["over_budget"] > 0


def test_the_first_calibration_that_is_cut_off_is_a_warning(tmp_path: Path):
    driver = Driver(tmp_path, **{"search.trials": 3})
    driver.train(calibration={"layers": 9, "bounded": 0})
    driver.train(calibration={"layers": 9, "bounded": 2})
    driver.train(calibration={"layers": 9, "bounded": 3})
    (said,) = [event.reason for event in driver.events if event.kind == "note"]
    assert said.startswith("warning: trial 1: calibration scales 2 of 9 layers less than")


def test_weights_of_the_best_few_are_kept_and_no_checkpoints(tmp_path: Path):
    driver = Driver(tmp_path, **{"run.keep_best": 2, "search.trials": 4})
    folders = []
    for value in (0.3, 0.1, 0.4, 0.2):
        assignment = driver.study.ask()
        assignment.folder.mkdir(parents=True)
        for name in (CHECKPOINT, WEIGHTS, LAST_WEIGHTS):
            (assignment.folder / name).touch()
        (assignment.folder / DETECTIONS).mkdir()
        (assignment.folder / DETECTIONS / "1.png").touch()
        folders.append(assignment.folder)
        for epoch in (1, 2):
            driver.study.report(assignment.number, report(value, epoch))
    for kept in (WEIGHTS, LAST_WEIGHTS, DETECTIONS, f"{DETECTIONS}/1.png"):
        assert [(folder / kept).exists() for folder in folders] == [True, False, True, False]
    assert not any((folder / CHECKPOINT).exists() for folder in folders)
    assert driver.trial(2).user_attrs["checkpoint"] == str(folders[2] / WEIGHTS)


def test_a_trial_has_the_scores_of_the_epoch_that_it_keeps(tmp_path: Path):
    driver = Driver(tmp_path)
    best = report(0.4, 1).metrics
    trial = driver.trial(driver.train(0.2, best=best, best_epoch=1))
    assert (trial.value, trial.user_attrs["map"], trial.user_attrs["map_50"]) == (0.4, 0.4, 0.4)
    assert trial.user_attrs["map_per_class"] == {"a": 0.4, "b": None}
    assert (trial.user_attrs["epochs"], trial.user_attrs["kept_epoch"]) == (2, 1)
    assert trial.intermediate_values == {1: 0.2, 2: 0.2}  # what was scored
    last = driver.trial(driver.train(0.3))
    assert (last.value, last.user_attrs["kept_epoch"]) == (0.3, 2)


@pytest.mark.parametrize("ending", ["fail", "infeasible", "over budget"])
def test_a_trial_without_a_result_leaves_no_weights_of_its_best_epoch(tmp_path: Path, ending: str):
    driver = Driver(tmp_path)
    assignment = driver.study.ask()
    assignment.folder.mkdir(parents=True)
    (assignment.folder / WEIGHTS).touch()
    driver.study.report(assignment.number, report(0.3, 1))
    assert (assignment.folder / WEIGHTS).exists()
    if ending == "fail":
        driver.study.fail(assignment.number, "it diverged")
    elif ending == "infeasible":
        driver.study.infeasible(assignment.number, "out of memory", 2**40)
    else:
        driver.study.report(assignment.number, report(0.3, 2, memory_peak_bytes=2**40))
    assert not (assignment.folder / WEIGHTS).exists()


def test_the_password_is_not_in_the_study(tmp_path: Path):
    driver = Driver(tmp_path)
    assert driver.study.study.user_attrs["nas_spec"]["storage"] == driver.spec.storage
    hidden = public_spec(
        driver.spec.model_copy(update={"storage": "postgresql+psycopg://me:secret@host/x"})
    )
    assert "secret" not in str(hidden)
