"""Intervals, marks and the order of a leaderboard whose first rows were trained again."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers.studies import frozen
from optuna.trial import FrozenTrial, TrialState

from nas.study.leaderboard import ranked
from nas.study.roles import BASELINE, REPLICATE
from nas.study.significance import (
    against_baselines,
    board_rows,
    difference_interval,
    seed_deviation,
)
from search_spaces.layout import Layout

SWIN = "T2-T2-T6-T2@16"
BASELINES = {"nas_baselines": [{"name": "Swin-T", "layout": SWIN, "memory_predicted_gib": 0.1}]}


def candidates(*scores: float) -> list[FrozenTrial]:
    return [frozen(number, score=score) for number, score in enumerate(scores)]


def again(candidate: FrozenTrial, *scores: float) -> list[FrozenTrial]:
    known = {name: candidate.user_attrs[name] for name in ("layout", "layout_id")}
    return [
        frozen(0, score=score, role=REPLICATE, replicate=r, **known)
        for r, score in enumerate(scores, start=1)
    ]


def baseline(*scores: float) -> list[FrozenTrial]:
    known = {"layout": SWIN, "layout_id": Layout.parse(SWIN).layout_id, "role": BASELINE}
    return [frozen(0, score=score, replicate=r or None, **known) for r, score in enumerate(scores)]


def test_the_first_three_are_ordered_by_their_replicates_the_others_by_the_score_that_chose_them():
    lucky, second, third, fourth = candidates(0.5, 0.4, 0.3, 0.2)
    trials = [
        lucky,
        second,
        third,
        fourth,
        *again(lucky, 0.2, 0.3),
        *again(second, 0.45, 0.35),
        *again(third, 0.1),
    ]
    assert [int(trial.user_attrs["layout_id"]) for trial in ranked(trials)] == [1, 0, 2, 3]
    without = [
        lucky,
        second,
        third,
        fourth,
        *again(second, 0.45, 0.35),
    ]  # the first has not been trained again yet
    assert [int(trial.user_attrs["layout_id"]) for trial in ranked(without)] == [0, 1, 2, 3]


def test_baselines_and_replicates_are_no_candidates():
    first = candidates(0.3)
    trials = [*first, *again(first[0], 0.9), *baseline(0.8, 0.9)]
    assert ranked(trials) == first
    assert [row.map_again for row in board_rows(trials)] == [0.9]


def test_the_deviation_is_that_of_scores_that_chose_nothing():
    first, other = candidates(0.9, 0.3)
    trials = [
        first,
        other,
        *again(first, 0.30, 0.34),
        *again(other, 0.2),
        *baseline(0.10, 0.14, 0.12),
    ]
    deviation, degrees = seed_deviation(trials)
    groups = [[0.30, 0.34], [0.10, 0.14, 0.12]]
    squares = sum(((np.array(group) - np.mean(group)) ** 2).sum() for group in groups)
    assert degrees == 3
    assert deviation == pytest.approx(math.sqrt(squares / 3))
    assert seed_deviation([first, other, *again(first, 0.3), *baseline(0.1)]) is None


def test_rows_within_the_margin_of_the_first_are_marked():
    """Three degrees of freedom: the 97.5 % quantile of Student's t is 3.182 (any table of it)."""
    first, other, last = candidates(0.40, 0.39, 0.2)
    trials = [first, other, last, *again(first, 0.38, 0.42), *baseline(0.10, 0.14, 0.12)]
    deviation = math.sqrt((2 * 0.02**2 + 2 * 0.02**2) / 3)
    margin = 3.182 * deviation * math.sqrt(1 / 2 + 1)
    rows = board_rows(trials)
    assert [row.within_noise for row in rows] == [
        0.40 - score < margin for score in (0.40, 0.39, 0.2)
    ]
    assert [row.within_noise for row in rows] == [True, True, False]
    assert [row.replicates for row in rows] == [2, 0, 0]
    assert [row.within_noise for row in board_rows([first, other])] == [None, None]


def test_welch_intervals_hold_the_true_difference_as_often_as_they_say():
    draw = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        low, high = difference_interval(
            draw.normal(0.30, 0.01, 4).tolist(), draw.normal(0.25, 0.04, 5).tolist()
        )
        hits += low <= 0.05 <= high
    assert 0.935 < hits / 2000 < 0.975


def test_equal_scores_have_an_interval_without_width():
    assert difference_interval([0.5, 0.5], [0.25, 0.25]) == (0.25, 0.25)


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        ((0.50, 0.51), (0.30, 0.31), "better"),
        ((0.30, 0.31), (0.50, 0.51), "worse"),
        ((0.40, 0.45), (0.41, 0.43), "within noise"),
        ((0.50,), (0.30, 0.31), "no interval"),
        ((), (0.30, 0.31), "no interval"),
        ((0.50, 0.51), (0.30,), "no interval"),
        ((0.50, 0.51), (), "not trained yet"),
    ],
)
def test_verdicts(ours: tuple[float, ...], theirs: tuple[float, ...], verdict: str):
    best = candidates(0.6)[0]
    (row,) = against_baselines(BASELINES, [best, *again(best, *ours), *baseline(*theirs)])
    assert row.verdict == verdict
    assert row.trainings == len(theirs)
    if theirs:
        assert row.difference == pytest.approx(np.mean(ours or [0.6]) - np.mean(theirs))
    assert (row.difference_low is None) == (verdict in ("no interval", "not trained yet"))


def test_a_baseline_that_could_not_be_trained_says_why():
    broken = baseline(0.1)[0]
    broken.state, broken.values = TrialState.FAIL, None
    broken.set_user_attr("fail_reason", "the loss is nan")
    assert against_baselines(BASELINES, [*candidates(0.3), broken])[0].verdict == "the loss is nan"
    assert against_baselines(BASELINES, baseline(0.1))[0].verdict == "no candidate yet"


def test_a_baseline_that_is_the_best_candidate_is_not_compared_with_itself():
    best = frozen(0, score=0.5, layout=SWIN, layout_id=Layout.parse(SWIN).layout_id)
    assert against_baselines(BASELINES, [best])[0].verdict == "the best itself"
