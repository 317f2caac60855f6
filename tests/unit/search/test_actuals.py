"""What a search took, from the times of its trials."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from helpers.studies import frozen
from optuna.trial import FrozenTrial, TrialState

from nas.search.forecast.actuals import cost_line, spent

PREDICTED = {
    "trials": 4,
    "train_s_low": 100.0,
    "train_s_high": 100.0,
    "wall_s_low": 90.0,
    "wall_s_high": 200.0,
}


def ran(
    number: int,
    start_s: float,
    end_s: float,
    state: TrialState = TrialState.COMPLETE,
    **changes: object,
) -> FrozenTrial:
    trial, noon = frozen(number, state, **changes), datetime(2026, 1, 1, 12)
    trial.datetime_start, trial.datetime_complete = (
        noon + timedelta(seconds=start_s),
        noon + timedelta(seconds=end_s),
    )
    return trial


def test_overlaps_count_once_and_pauses_not_at_all():
    trials = [ran(0, 0, 50), ran(1, 10, 30), ran(2, 40, 70), ran(3, 1000, 1005)]
    covered = {second for trial in trials for second in range(1200) if covers(trial, second)}
    assert spent(trials).wall_s == len(covered) == 75
    assert spent(trials).train_s == pytest.approx(4 * 60)


def covers(trial: FrozenTrial, second: int) -> bool:
    moment = datetime(2026, 1, 1, 12) + timedelta(seconds=second + 0.5)
    return trial.datetime_start < moment < trial.datetime_complete


def test_only_what_ended_here_counts():
    running, elsewhere = frozen(1, TrialState.RUNNING), ran(2, 0, 500, role="taken over")
    failed = ran(3, 20, 30, TrialState.FAIL, train_s=None)
    found = spent([ran(0, 0, 10), running, elsewhere, failed])
    assert (found.trials, found.train_s, found.wall_s) == (2, 60.0, 20.0)
    assert spent([]).wall_s == 0


def test_the_line_has_both():
    line = cost_line({"nas_cost_predicted": PREDICTED}, [ran(0, 0, 30)])
    assert line == (
        "Predicted for 4 trainings: 1.7 min of training, 90 s to 3.3 min of wall time. The 1 that "
        "have ended took 60 s of "
        "training, 30 s of wall time."
    )
    assert cost_line({}, [ran(0, 0, 30)]) is None
