"""A study after its driver: who takes over what a dead one left, and with which request it may go
on.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import optuna
import pytest
from helpers.untrained import FACTS, Driver, report, spec
from optuna.trial import TrialState

from nas.artifacts.paths import CHECKPOINT
from nas.errors import StudyError
from nas.search.samplers import distributions
from nas.study.leaderboard import feasible
from nas.study.storage import open_storage
from nas.study.trials import MEASURED
from nas.utils.formatting import GIB


def test_trials_of_a_dead_driver_go_on_under_their_number(tmp_path: Path):
    first = Driver(tmp_path)
    first.train(0.4)
    left = first.study.ask()
    first.study.report(left.number, report(0.1, 1))
    left.folder.mkdir(parents=True)
    (left.folder / CHECKPOINT).write_text("after epoch 1")
    second = Driver(tmp_path)
    adopted = second.study.ask()
    assert (adopted.number, adopted.layout) == (left.number, left.layout)
    assert adopted.folder != left.folder  # a worker of the dead driver may still write there
    assert (adopted.folder / CHECKPOINT).read_text() == "after epoch 1"
    assert second.study.report(
        adopted.number, report(0.1, 1)
    )  # the checkpoint's report, heard before
    assert not second.study.report(adopted.number, report(0.7, 2))
    trial = second.trial(left.number)
    assert (trial.state, trial.value, trial.intermediate_values) == (
        TrialState.COMPLETE,
        0.7,
        {1: 0.1, 2: 0.7},
    )
    assert second.study.ask().number == 2
    assert second.study.study.user_attrs["nas_uuid"] == first.study.study.user_attrs["nas_uuid"]


def test_an_end_that_a_dead_driver_did_not_finish_is_forgotten(tmp_path: Path):
    first = Driver(tmp_path)
    left = first.study.ask()
    trial = first.study._running[left.number].trial
    first.study.table.set(trial, fail_reason="broken", infeasible_reason="too large")
    first.study.table.constrain(trial, MEASURED, 5 * GIB)
    assert not feasible(first.trial(left.number))
    second = Driver(tmp_path)
    adopted = second.study.ask()
    assert adopted.number == left.number
    second.study.report(adopted.number, report(0.7, 2))
    found = second.trial(left.number)
    assert found.state == TrialState.COMPLETE
    assert feasible(found)
    assert not {"fail_reason", "infeasible_reason"} & set(found.user_attrs)


def test_a_dead_workers_trial_goes_on_but_not_for_ever(tmp_path: Path):
    driver = Driver(tmp_path, **{"run.retries": 2, "search.trials": 1})
    number = driver.study.ask().number
    driver.study.report(number, report(0.3, 1))
    for _ in range(2):
        driver.study.requeue(number, "the worker process died")
        assert driver.study.running == 0
        assert not driver.study.finished
        assert driver.study.ask().number == number
    assert driver.trial(number).intermediate_values == {1: 0.3}
    driver.study.requeue(number, "the worker process died")
    assert driver.trial(number).state == TrialState.FAIL
    assert driver.trial(number).user_attrs["fail_reason"] == "the worker process died, 3 times"
    assert driver.kinds().count("requeued") == 2
    other = driver.study.ask()
    assert other.number == 1
    assert other.layout.layout_id != driver.trial(number).user_attrs["layout_id"]
    assert driver.trial(number).user_attrs["worker_deaths"] == 3
    failed = driver.trial(number).user_attrs["layout_id"]
    assert failed in driver.study.table.trained_layout_ids(retries=2)


def test_a_worker_that_dies_after_every_epoch_costs_no_trial(tmp_path: Path):
    driver = Driver(tmp_path, **{"run.retries": 1, "search.trials": 1})
    for epoch in range(1, 6):
        number = driver.study.ask().number
        assert driver.study.report(number, report(0.3, epoch, epochs=6))
        driver.study.requeue(number, "the worker process died")
    assert driver.study.ask().number == number
    assert not driver.study.report(number, report(0.3, 6, epochs=6))
    assert driver.trial(number).state == TrialState.COMPLETE


def test_workers_that_all_die_halt_the_search(tmp_path: Path):
    driver = Driver(tmp_path, **{"run.retries": 2, "search.trials": 40})
    for _ in range(10):
        driver.study.requeue(driver.study.ask().number, "killed")
    assert driver.study.ask() is None
    assert driver.study.finished
    assert driver.study.halted_reason == (
        "10 worker processes in a row died before an epoch was trained, the last: killed"
    )
    assert driver.kinds().count("failed") == 3
    assert driver.kinds()[-1] == "halted"
    assert driver.trial(3).state == TrialState.RUNNING  # for the next driver


def test_what_a_superseded_driver_says_does_not_count(tmp_path: Path):
    first = Driver(tmp_path)
    numbers = [first.study.ask().number for _ in range(3)]
    second = Driver(tmp_path)
    assert [second.study.ask().number for _ in range(3)] == numbers
    assert not first.study.report(0, report(0.9, 1))
    first.study.fail(1, "broken")
    first.study.infeasible(2, "too large", 99 * GIB)
    assert first.kinds() == ["started"] * 3 + ["lost"] * 3
    assert first.study.running == 0
    assert {second.trial(number).state for number in numbers} == {TrialState.RUNNING}
    assert not second.trial(0).intermediate_values
    assert second.study.report(0, report(0.9, 1))


@pytest.mark.parametrize("chosen", [0, 2, 5])
def test_a_trial_whose_driver_died_while_it_was_choosing_gets_a_layout(tmp_path: Path, chosen: int):
    first = Driver(tmp_path)
    choices = list(distributions(first.study.budget.space).items())[:chosen]
    kept = first.study.study.ask(dict(choices)).params
    second = Driver(tmp_path)
    assignment = second.study.ask()
    assert assignment.number == 0
    assert kept.items() <= second.trial(0).params.items()
    assert second.trial(0).user_attrs["layout"] == str(assignment.layout)


def test_a_choice_that_is_taken_by_then_is_a_failure(tmp_path: Path):
    first = Driver(tmp_path)
    first.train()
    first.study.study.enqueue_trial(first.trial(0).params)
    first.study.study.ask(distributions(first.study.budget.space))
    second = Driver(tmp_path)
    assert second.study.ask().number == 2
    assert second.trial(1).state == TrialState.FAIL


def test_more_trials_than_before_may_be_asked_for(tmp_path: Path):
    driver = Driver(tmp_path)
    for _ in range(3):
        driver.train()
    assert Driver(tmp_path).study.finished
    more = Driver(
        tmp_path,
        **{
            "search.trials": 4,
            "search.sampler": "tpe",
            "search.pruner": "median",
            "run.retries": 0,
        },
    )
    assert not more.study.finished
    assert more.study.ask().number == 3


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"recipe.epochs": 3}, "recipe.epochs was 2, now 3"),
        ({"detector.name": "atss"}, "detector.name was 'fcos', now 'atss'"),
        ({"budget.memory": "8GiB"}, "budget.memory was '16GiB', now '8GiB'"),
        ({"calibration.alpha": 0.5}, "calibration.alpha was 0.25, now 0.5"),
        (
            {"space": "paper", "recipe": "tiny", "recipe.epochs": 2},
            "space.name was 'tiny', now 'paper'",
        ),
    ],
)
def test_another_request_is_refused_with_the_difference(tmp_path: Path, flags: dict, words: str):
    Driver(tmp_path)
    with pytest.raises(StudyError, match=words):
        Driver(tmp_path, **flags)


def test_other_data_is_refused(tmp_path: Path):
    Driver(tmp_path)
    with pytest.raises(StudyError, match="fingerprint was 'fingerprint', now 'other'"):
        Driver(tmp_path, dataclasses.replace(FACTS, fingerprint="other"))


def test_a_study_of_somebody_else_is_refused(tmp_path: Path):
    storage = open_storage(spec(tmp_path).storage, create=True)
    optuna.create_study(study_name="cells", storage=storage).ask()
    with pytest.raises(StudyError, match="'cells' exists and is not a search"):
        Driver(tmp_path)
