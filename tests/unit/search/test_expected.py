"""What the model expects of candidates beside their scores: its unit, its calibration, and what it
reads.
"""

from __future__ import annotations

import numpy as np
import pytest
from helpers.studies import frozen
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.reports import LeaderboardRow
from nas.search.multifidelity.expected import expected_board, expected_maps
from search_spaces.layout import Layout
from search_spaces.loading import load_space

LAYOUTS = list(load_space("tiny").shuffled(0))


def truth(layout: Layout) -> float:
    """Mean mAP: deeper third stages and wider layouts are better."""
    return 0.25 + 0.02 * layout.depths[2] + 0.03 * (layout.widths[0] == 24)


def trained(noise: float, count: int = 40, seed: int = 0, **changes: object) -> list[FrozenTrial]:
    """Trainings of two epochs that show the truth with noise of normal distribution."""
    rng = np.random.default_rng(seed)
    return [
        create_trial(
            value=(score := truth(layout) + noise * rng.normal()),
            intermediate_values={1: score - 0.1, 2: score},
            user_attrs={
                "layout": str(layout),
                "layout_id": layout.layout_id,
                "flops": 10**6 + number,
                "role": "candidate",
                "map": score,
                **changes,
            },
        )
        for number, layout in enumerate(LAYOUTS[:count])
    ]


def numbered(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    for number, trial in enumerate(trials):
        trial.number = number
    return trials


@pytest.mark.parametrize("noise", [0.005, 0.02])
def test_it_is_nearer_to_the_truth_than_scores_are_and_knows_how_near(noise: float):
    errors, scores, inside = [], [], []
    for seed in range(6):
        trials = numbered(trained(noise, seed=seed))
        found = expected_maps(trials, epochs=2)
        for trial, layout in zip(trials, LAYOUTS, strict=False):
            mean, low, high = found[trial.number]
            assert low < mean < high
            errors.append(mean - truth(layout))
            scores.append(trial.values[0] - truth(layout))
            inside.append(low < truth(layout) < high)
    assert np.std(errors) < 0.8 * np.std(scores)
    assert abs(np.mean(errors)) < 0.2 * noise
    assert np.mean(inside) > 0.9


def test_the_board_keeps_its_order_and_shows_it_beside_the_scores():
    trials = numbered(trained(0.02, count=12))
    board = expected_board(trials, epochs=2)
    scores = [row.value for row in board]
    assert scores == sorted(scores, reverse=True)
    best = board[0]
    assert best.map_expected < best.value  # the best of noisy scores is a lucky one
    assert best.map_low < best.map_expected < best.map_high
    assert best.to_dict()["map_expected"] == best.map_expected


def test_stopped_candidates_count_and_other_roles_do_not():
    trials = numbered(trained(0.0, count=12))
    stopped = numbered(trained(0.0, count=13))[12]
    stopped.state, stopped.values = TrialState.PRUNED, None
    del stopped.intermediate_values[2]
    again = trained(0.0, count=13, role="replicate", replicate=1)[12]
    again.number = 99
    found = expected_maps([*trials, stopped, again], epochs=2)
    assert found.keys() == {*range(13)}
    assert found[12][0] == pytest.approx(truth(LAYOUTS[12]), abs=0.01)


def test_too_little_is_no_expectation():
    board = expected_board(numbered(trained(0.02, count=3)), epochs=2)
    assert [row.map_expected for row in board] == [None] * 3
    assert "map_expected" not in board[0].to_dict()


@pytest.mark.parametrize(
    "changes",
    [
        {"layout": "<b>"},
        {"layout": None},
        {"flops": None},
        {"losses": {"one": 1.0}},
        {"losses": {"1": None}},
    ],
    ids=str,
)
def test_what_no_search_writes_takes_its_own_row_away_at_most(changes: dict):
    odd = frozen(20, score=0.3, **changes)
    odd.number = 20
    for name, value in changes.items():
        odd.user_attrs[name] = value
    trials = numbered(trained(0.02, count=12))
    rows: list[LeaderboardRow] = expected_board([*trials, odd], epochs=4)
    assert len(rows) == 13
    assert all(row.map_expected for row in rows if row.number != 20)
