"""A study as a notebook reads it."""

from __future__ import annotations

from pathlib import Path

import optuna
from helpers.studies import KNOWN, LAYOUTS, frozen

import nas


def test_the_leaderboard_says_what_is_expected_of_a_lucky_score(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/nas.db"
    study = optuna.create_study(study_name="cells", storage=url, direction="maximize")
    for key, value in KNOWN.items():
        study.set_user_attr(key, value)
    for number in range(12):
        lucky = 0.05 * (number == 5)  # another training of the layout of numbers 0 and 10
        study.add_trial(frozen(number, score=0.2 + 0.02 * (number % len(LAYOUTS)) + lucky))
    board = nas.load_study(url, "cells").leaderboard()
    row = next(row for row in board if row.number == 5)
    assert row.map_expected is not None
    assert row.map_expected < row.value - 0.02
    assert all(each.map_low < each.map_expected < each.map_high for each in board)
