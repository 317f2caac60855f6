"""The leaderboard on the terminal: columns that are there only where a row has something for
them.
"""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from helpers.studies import frozen
from rich.console import Console

from nas.cli.tables import leaderboard_table
from nas.reports import LeaderboardRow
from nas.study.significance import board_rows


def printed(rows: list[LeaderboardRow]) -> str:
    text = io.StringIO()
    Console(file=text, width=160).print(leaderboard_table(rows, "cells"))
    return text.getvalue()


@pytest.mark.parametrize("expected", [None, 0.3124])
def test_what_is_expected_has_a_column_where_it_is_known(expected: float | None):
    first, second = board_rows([frozen(0, score=0.4), frozen(1, score=0.3)])
    if expected:
        first = replace(first, map_expected=expected, map_low=0.3, map_high=0.32)
    text = printed([first, second])
    assert ("expected" in text) == bool(expected)
    assert ("31.2 ± 1.0" in text) == bool(expected)
