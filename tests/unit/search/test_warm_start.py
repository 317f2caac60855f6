"""Results of earlier studies: taken over where they are comparable, refused with a word where they
are not.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import optuna
import pytest
from helpers.untrained import FACTS, Driver
from optuna.trial import TrialState

from nas.errors import StudyError
from nas.study.leaderboard import leaderboard


@pytest.fixture
def earlier(tmp_path: Path) -> Driver:
    """Three trials, the second one the best."""
    driver = Driver(tmp_path, study="earlier")
    for value in (0.2, 0.4, 0.3):
        driver.train(value)
    return driver


def layouts(driver: Driver) -> list[str]:
    return [trial.user_attrs["layout"] for trial in driver.study.study.trials]


def test_what_was_trained_is_known_and_not_trained_again(tmp_path: Path, earlier: Driver):
    later = Driver(
        tmp_path, study="later", **{"search.warm_start": ("earlier",), "search.trials": 5}
    )
    assert [event.reason for event in later.events] == [
        "taken over from 'earlier': 3 results; 0 others are not in this space or budget"
    ]
    assert layouts(later) == layouts(earlier)
    assert [trial.value for trial in later.study.study.trials] == [0.2, 0.4, 0.3]
    assert leaderboard(later.study.study)[0].user_attrs["origin"] == "earlier trial 1"
    assert later.study.ended == 0  # all that were asked for are still to be trained
    while not later.study.finished:
        later.train(0.1)
    assert later.study.ended == 5
    assert len(set(layouts(later))) == 3 + 5


def test_once_however_often_the_command_is_repeated(tmp_path: Path, earlier: Driver):
    flags = {"study": "later", "search.warm_start": ("earlier",), "search.trials": 2}
    Driver(tmp_path, **flags).train()
    earlier_more = Driver(tmp_path, study="earlier", **{"search.trials": 4})
    earlier_more.train(0.9)
    again = Driver(tmp_path, **flags)
    fresh = (
        earlier_more.trial(3).user_attrs["layout"] != layouts(again)[3]
    )  # unless the later study came to it by itself
    assert again.events[0].reason.startswith(f"taken over from 'earlier': {int(fresh)} results")
    assert len(set(layouts(again))) == len(layouts(again)) == 4 + fresh


def test_weights_of_the_earlier_study_are_left_alone(tmp_path: Path, earlier: Driver):
    weights = [Path(trial.user_attrs["checkpoint"]) for trial in earlier.study.study.trials]
    for path in weights:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    later = Driver(
        tmp_path, study="later", **{"search.warm_start": ("earlier",), "run.keep_best": 1}
    )
    later.train(0.8)
    later.train(0.9)
    assert all(path.exists() for path in weights)


@pytest.mark.parametrize(
    ("flags", "facts", "said"),
    [
        ({"recipe.epochs": 3}, FACTS, "recipe.epochs was 2, now 3"),
        ({"detector.name": "atss"}, FACTS, "detector.name was 'fcos', now 'atss'"),
        ({"calibration.enabled": False}, FACTS, "calibration.enabled was True, now False"),
        (
            {},
            dataclasses.replace(FACTS, fingerprint="another"),
            "the data's fingerprint was 'fingerprint', now 'another'",
        ),
    ],
)
def test_scores_that_cannot_be_compared(
    tmp_path: Path, earlier: Driver, flags: dict, facts, said: str
):
    later = Driver(tmp_path, facts, study="later", **{"search.warm_start": ("earlier",), **flags})
    assert later.events[0].reason == (
        f"warning: nothing taken over from 'earlier', its scores are not comparable: {said}"
    )
    assert later.study.study.trials == []


def test_only_what_fits_and_is_in_the_space(tmp_path: Path, earlier: Driver):
    flags = {
        "space": "paper",
        "recipe.name": "tiny",
        "detector.channels": 64,
        "detector.hidden": 256,
    }
    later = Driver(tmp_path, study="later", **{"search.warm_start": ("earlier",), **flags})
    assert (
        later.events[0].reason
        == "taken over from 'earlier': 0 results; 3 others are not in this space or budget"
    )
    peaks = sorted(trial.user_attrs["memory_predicted_gib"] for trial in earlier.study.study.trials)
    budget = f"{(peaks[0] + peaks[1]) / 2} GiB"
    small = Driver(
        tmp_path, study="small", **{"search.warm_start": ("earlier",), "budget.memory": budget}
    )
    assert [trial.state for trial in small.study.study.trials] == [TrialState.COMPLETE]
    assert small.study.study.trials[0].user_attrs["memory_predicted_gib"] == peaks[0]


def test_other_objectives_are_computed_from_what_was_measured(tmp_path: Path, earlier: Driver):
    later = Driver(
        tmp_path,
        study="later",
        **{"search.warm_start": ("earlier",), "search.objectives": ("map", "params")},
    )
    for trial in later.study.study.trials:
        assert trial.values == [trial.user_attrs["map"], trial.user_attrs["params"]]


def test_an_unknown_study(tmp_path: Path, earlier: Driver):
    with pytest.raises(
        StudyError,
        match=r"search.warm_start must be one of earlier; got 'earlyer' .did you mean 'earlier'",
    ):
        Driver(tmp_path, study="later", **{"search.warm_start": ("earlyer",)})
    assert optuna.get_all_study_names(earlier.study.storage) == ["earlier"]  # none was made
