"""The leaderboard with what the model of `multifidelity` makes of each candidate, whichever sampler
chose it: less lucky than a single score.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from optuna.trial import FrozenTrial

from nas.reports import LeaderboardRow
from nas.search.multifidelity.curves import map_scale, projected_scores
from nas.search.multifidelity.observations import Observations
from nas.study.roles import is_candidate
from nas.study.significance import board_rows
from search_spaces.errors import UserError
from search_spaces.layout import Layout

LEAST = 4  # candidates with a score; of fewer the model says what it began with
Z95 = 1.96

Expected = tuple[float, float, float]


def expected_board(
    trials: Sequence[FrozenTrial], epochs: int, front: Collection[int] = ()
) -> list[LeaderboardRow]:
    """The leaderboard of a study in the order of `nas.study.significance.board_rows`, with the mAP
    that is expected of each row.

    Args:
        trials: of one study, all roles and states, with their scores by epoch.
        epochs: of a whole training.
        front: numbers of the trials on the Pareto front; empty with one objective.
    """
    known = expected_maps(trials, epochs)
    return [_with_expected(row, known.get(row.number)) for row in board_rows(trials, front)]


def _with_expected(row: LeaderboardRow, expected: Expected | None) -> LeaderboardRow:
    if expected is None:
        return row
    mean, low, high = expected
    return replace(row, map_expected=mean, map_low=low, map_high=high)


def expected_maps(trials: Sequence[FrozenTrial], epochs: int) -> dict[int, Expected]:
    """What a training of each candidate's layout is expected to reach, on the mean over seeds.

    Args:
        trials, epochs: see `expected_board`.

    Returns:
        By number of the trial the posterior mean of the layout's mAP and the ends of its 95 %
        interval, fractions; empty where too little has been trained. A score that is far below the
        others counts as twice as far below their median as their best tenth is above it.
    """
    readable = [trial for trial in trials if is_candidate(trial) and _is_described(trial)]
    seen = Observations.of_trials(readable, epochs)._replace(pending=[])
    if len(seen.trials) < LEAST:
        return {}
    scores, _ = projected_scores(seen.curves, epochs)
    mean, deviation = map_scale(seen.curves)
    unit = deviation / max(float(scores.std()), 1e-9)
    found = seen.model(epochs)
    middle, half = mean + unit * found.mean, Z95 * unit * found.deviation
    ends = np.column_stack([middle, middle - half, middle + half]).clip(0.0, 1.0)
    return {
        trial.number: (float(row[0]), float(row[1]), float(row[2]))
        for trial, row in zip(seen.trials, ends, strict=True)
    }


def _is_described(trial: FrozenTrial) -> bool:
    """Whether layout and multiply-adds can be read: a study may hold anything."""
    if trial.user_attrs.get("flops") is None:
        return False
    try:
        return bool(Layout.parse(str(trial.user_attrs.get("layout"))))
    except UserError:
        return False
