"""What a search has taken so far, beside what was predicted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial

from nas.study.roles import TAKEN_OVER, role_of
from nas.utils.formatting import duration_range_text, duration_text


@dataclass(frozen=True)
class Spent:
    """What the trials that ended in this study have taken.

    Args:
        trials: how many.
        train_s: seconds of training, summed.
        wall_s: seconds in which any of them ran.
    """

    trials: int
    train_s: float
    wall_s: float


def spent(trials: Iterable[FrozenTrial]) -> Spent:
    """Add up what trials of a study have taken; those that still run, or were taken over from an
    earlier study, do not count.
    """
    ended = [
        trial for trial in trials if trial.state.is_finished() and role_of(trial) != TAKEN_OVER
    ]
    spans = sorted(
        (t.datetime_start, t.datetime_complete)
        for t in ended
        if t.datetime_start and t.datetime_complete
    )
    wall_s, latest = 0.0, None
    for start, end in spans:
        begin = start if latest is None else max(start, latest)
        wall_s += max(0.0, (end - begin).total_seconds())
        latest = end if latest is None else max(end, latest)
    return Spent(len(ended), sum(trial.user_attrs.get("train_s") or 0.0 for trial in ended), wall_s)


def cost_line(study_attributes: Mapping[str, Any], trials: Iterable[FrozenTrial]) -> str | None:
    """Two sentences that say what a search was predicted to take and what it has taken so far.

    Args:
        study_attributes: of the study; `nas_cost_predicted` holds the prediction.
        trials: of the study.

    Returns:
        The sentences; None where nothing was predicted.
    """
    predicted = study_attributes.get("nas_cost_predicted")
    if not predicted:
        return None
    so_far = spent(trials)
    trainings = predicted["trials"] + predicted.get("baselines", 0) + predicted.get("replicates", 0)
    train, wall = (
        duration_range_text(predicted[f"{name}_low"], predicted[f"{name}_high"])
        for name in ("train_s", "wall_s")
    )
    return (
        f"Predicted for {trainings} trainings: {train} of training, {wall} of wall time. "
        f"The {so_far.trials} that have ended took {duration_text(so_far.train_s)} of training, "
        f"{duration_text(so_far.wall_s)} of wall time."
    )
