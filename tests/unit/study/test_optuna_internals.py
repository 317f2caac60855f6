"""What Optuna keeps private, held against what its public interface says of the same study."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from nas.study.optuna_internals import (
    CandidateStudy,
    MappedStudy,
    Storage,
    all_trials,
    id_in_storage,
    reopen_trial,
    set_attributes,
    set_constraint,
    start_trial,
    storage_of,
)
from nas.study.roles import BASELINE


@pytest.fixture(params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "memory":
        return optuna.storages.InMemoryStorage()
    return optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/nas.db")


@pytest.fixture
def study(storage: Storage) -> optuna.Study:
    return optuna.create_study(study_name="cells", storage=storage)


def test_ids_are_those_of_the_storage(study: optuna.Study, storage: Storage):
    assert id_in_storage(study) == storage.get_study_id_from_name("cells")
    (summary,) = optuna.get_all_study_summaries(storage)
    assert id_in_storage(summary) == id_in_storage(study)
    assert storage_of(study).get_study_name_from_id(id_in_storage(study)) == "cells"


def test_a_started_trial_is_described_and_can_be_reopened(study: optuna.Study):
    trial = start_trial(study, {"role": BASELINE, "layout": "C1"})
    (stored,) = study.trials
    assert (stored.number, stored.state) == (trial.number, TrialState.RUNNING)
    assert (stored.user_attrs, stored.params) == ({"role": BASELINE, "layout": "C1"}, {})
    again = reopen_trial(study, stored)
    again.report(0.5, 1)
    study.tell(again, 0.5)
    assert study.trials[0].intermediate_values == {1: 0.5}


def test_attributes_are_written_over(study: optuna.Study, storage: Storage):
    trial = study.ask()
    trial.set_user_attr("kept", 0)
    set_attributes(storage, trial, {"map": 0.25, "parts": {"stem": None}})
    set_attributes(storage, trial, {"map": 0.5})
    read = optuna.load_study(study_name="cells", storage=storage)
    assert read.trials[0].user_attrs == {"kept": 0, "map": 0.5, "parts": {"stem": None}}


def test_constraints_are_there_for_optuna_and_for_its_dashboard(
    study: optuna.Study, storage: Storage
):
    trial = study.ask()
    set_constraint(storage, trial, "first", -1.0)
    set_constraint(storage, trial, "second", 0.5)
    read = optuna.load_study(study_name="cells", storage=storage).trials[0]
    assert (read.constraints["first"], read.constraints["second"]) == (-1.0, 0.5)
    assert read.system_attrs["constraints"] == [-1.0, 0.5]
    set_constraint(storage, trial, "second", -0.5)
    read = optuna.load_study(study_name="cells", storage=storage).trials[0]
    assert read.constraints["second"] == -0.5
    assert read.system_attrs["constraints"] == [-1.0, -0.5]


def test_candidates_alone_and_all_trials(study: optuna.Study, storage: Storage):
    study.ask()
    start_trial(study, {"role": BASELINE})
    candidates = CandidateStudy("cells", storage)
    assert [trial.number for trial in candidates.trials] == [0]
    assert [trial.number for trial in candidates.get_trials(deepcopy=False)] == [0]
    assert [trial.number for trial in all_trials(candidates)] == [0, 1]


def test_a_mapped_study_changes_what_is_seen_and_nothing_else(study: optuna.Study):
    study.tell(study.ask(), 1.0)
    flipped = MappedStudy(study, lambda trial: optuna.trial.create_trial(value=-1.0))
    assert [trial.value for trial in flipped.get_trials()] == [-1.0]
    assert [trial.value for trial in study.trials] == [1.0]
