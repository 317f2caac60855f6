"""Trials read by one statement a table: the same as Optuna's own reading, but for the scores by
epoch, which come by themselves.
"""

from __future__ import annotations

import math
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from nas.study import trial_reading
from nas.study.optuna_internals import id_in_storage, quick_storage
from nas.study.storage import open_storage
from nas.study.trial_reading import read_reports, read_trials


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    """Trials of every state, with odd values, several objectives and all kinds of parameters."""
    storage = open_storage(f"sqlite:///{tmp_path}/nas.db", create=True)
    optuna.create_study(study_name="other", storage=storage).ask()
    study = optuna.create_study(
        study_name="mine", storage=storage, directions=["maximize", "minimize"]
    )
    for number in range(8):
        trial = study.ask()
        trial.suggest_categorical("kind", ("C", "T", None, 3))
        trial.suggest_int("depth", 1, 9, step=2)
        trial.suggest_float("rate", 1e-4, 1e-1, log=True)
        trial.set_user_attr("parts", {"a": [1, None, 0.5]})
        trial.set_constraint("memory", number - 3.5)
        if number == 1:
            study.tell(trial, state=TrialState.FAIL)
        elif number == 2:
            study.tell(trial, state=TrialState.PRUNED)
        elif number < 7:
            study.tell(trial, (number / 3, math.inf if number == 4 else -number))
    study.enqueue_trial({"depth": 3})
    return study


def fields(trial: FrozenTrial) -> dict[str, object]:
    return {**vars(trial), "_intermediate_values": None, "intermediate_values": None}


@pytest.mark.parametrize("at_once", [1, 3, 500])
def test_trials_are_those_that_optuna_reads(
    study: optuna.Study, at_once: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trial_reading, "AT_ONCE", at_once)
    theirs = study.get_trials()
    ours = read_trials(study._storage._backend.engine, id_in_storage(study))
    assert [fields(trial) for trial in ours] == [fields(trial) for trial in theirs]
    assert {trial.state for trial in ours} == set(TrialState)


def test_only_what_is_wanted_is_read(study: optuna.Study, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trial_reading, "AT_ONCE", 2)
    engine, keys = study._storage._backend.engine, [t._trial_id for t in study.get_trials()]
    found = read_trials(engine, id_in_storage(study), known=keys[:2], above=keys[5])
    assert [trial._trial_id for trial in found] == [*keys[:2], *keys[6:]]


def test_a_storage_without_reports_sees_what_changes(study: optuna.Study):
    quick = optuna.load_study(
        study_name="mine", storage=quick_storage(study._storage._backend, reports=False)
    )
    assert len(quick.trials) == 9
    running = next(t for t in study.get_trials() if t.state == TrialState.RUNNING)
    study.tell(running.number, (1.0, 2.0))
    study.ask()
    assert [t.state for t in quick.trials] == [t.state for t in study.get_trials()]
    assert quick.trials[running.number].values == [1.0, 2.0]
    assert study.get_trials()[0].params == quick.trials[0].params


def test_reports_are_those_that_optuna_reads(tmp_path: Path):
    storage = open_storage(f"sqlite:///{tmp_path}/nas.db", create=True)
    study = optuna.create_study(storage=storage, direction="maximize")
    for number in range(3):
        trial = study.ask()
        for step in range(1, 2 + number):
            trial.report(math.inf if step == 2 else step / 10, step)
    study.ask()
    found = read_reports(storage.engine, id_in_storage(study), [0, 2, 3])
    theirs = {trial.number: trial.intermediate_values for trial in study.get_trials()}
    assert found == {number: theirs[number] for number in (0, 2)}
    assert read_trials(storage.engine, id_in_storage(study), reports=True) == study.get_trials()
