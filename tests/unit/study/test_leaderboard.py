"""Studies and trials by name and number; what is said where there is none."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import optuna
import pytest
from helpers.commands import Json, Run
from helpers.untrained import Driver

from nas.api.study import Study
from nas.errors import StudyError
from nas.study.leaderboard import find_trial, load_study, trial_rows
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


def test_what_nobody_trains_waits_for_the_next_command(tmp_path: Path, nas_json: Json, nas: Run):
    """Whatever ended its driver: a time limit, Ctrl-C or a crash. Optuna calls it RUNNING."""
    driver = Driver(tmp_path, study="cells", **{"search.trials": 2})
    storage = ("--storage", driver.spec.storage)
    with driver.study.lease():
        number = driver.study.ask().number
        (row,) = nas_json("status", *storage)["trials"]
        assert row["state"] == "RUNNING"
        (listed,) = nas_json("list", *storage)
        assert (listed["running"], listed["waiting"]) == (1, 0)
        driver.study.put_down(number, "the time of the search is over")
    (row,) = nas_json("status", *storage)["trials"]
    assert row["state"] == "WAITING"
    (listed,) = nas_json("list", *storage)
    assert (listed["running"], listed["waiting"]) == (0, 1)
    assert "the next command goes on with it" in nas("status", *storage).out
    assert Study(driver.spec.storage).trials()[0].state == "WAITING"
    assert driver.train() == number
    assert nas_json("status", *storage)["trials"][0]["state"] == "COMPLETE"


def test_studies_that_say_nothing_of_drivers_are_as_optuna_has_them(tmp_path: Path, nas_json: Json):
    url = f"sqlite:///{tmp_path}/nas.db"
    study = optuna.create_study(study_name="other", storage=url)
    study.ask()
    assert [row.state for row in trial_rows(study, study.trials)] == ["RUNNING"]
    memory = optuna.create_study()
    memory.set_user_attr("nas_uuid", "x")
    memory.ask()
    assert [row.state for row in trial_rows(memory, memory.trials)] == ["RUNNING"]
    (listed,) = nas_json("list", "--storage", url)
    assert (listed["running"], listed["waiting"]) == (1, 0)


@pytest.mark.parametrize(
    "change", ["pid = 9223372036854775807", "renewed_at = 'x'", "host = 5", "token = NULL"]
)
def test_odd_rows_of_drivers_are_a_line(tmp_path: Path, nas: Run, change: str):
    driver = Driver(tmp_path, study="cells")
    with driver.study.lease():
        driver.study.ask()
        with closing(sqlite3.connect(tmp_path / "nas.db")) as connection:
            with suppress(sqlite3.IntegrityError):
                connection.execute(f"UPDATE nas_drivers SET {change}")
            connection.commit()
        code, _, said = nas("status", "--storage", driver.spec.storage)
        assert code in (0, 2)
        assert len(said.splitlines()) == (code == 2)
