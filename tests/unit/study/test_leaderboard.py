"""Studies and trials by name and number; what is said where there is none."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from helpers.untrained import Driver

from nas.errors import StudyError
from nas.study.leaderboard import find_trial, load_study
from nas.study.storage import open_storage


def test_finding_studies_and_trials(tmp_path: Path):
    driver = Driver(tmp_path)
    storage = open_storage(driver.spec.storage, create=False)
    with pytest.raises(StudyError, match="no completed trial yet"):
        find_trial(load_study(storage, None), None)
    driver.train(0.2)
    driver.train(0.6)
    running = driver.study.ask().number
    study = load_study(storage, "cells")
    assert find_trial(study, None).number == 1
    assert find_trial(study, 0).number == 0
    with pytest.raises(
        StudyError, match=rf"one that completed \(0, 1\); got {running}, it is RUNNING"
    ):
        find_trial(study, running)
    with pytest.raises(StudyError, match="got 99, there is none"):
        find_trial(study, 99)
    with pytest.raises(StudyError, match="did you mean 'cells'"):
        load_study(storage, "cell")
    optuna.create_study(study_name="other", storage=storage)
    with pytest.raises(StudyError, match="--study is needed: the database has cells, other"):
        load_study(storage, None)
