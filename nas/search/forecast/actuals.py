"""What a search has taken so far, beside what was predicted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial

from nas.study.roles import TAKEN_OVER, role_of
from nas.utils.formatting import duration_text


@dataclass(frozen=True)
class Spent:
    """Of the trials that have ended here, in seconds: `train_s` is their sum, `wall_s` the time in
    which any of them ran.
    """

    trials: int
    train_s: float
    wall_s: float


def spent(trials: Iterable[FrozenTrial]) -> Spent:
    """What trials took; those that still run, or were taken over, do not count."""
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


def cost_line(known: dict[str, Any], trials: Iterable[FrozenTrial]) -> str | None:
    """Predicted beside actual cost, from the attributes of a study and its trials; None where
    nothing was predicted.
    """
    predicted = known.get("nas_cost_predicted")
    if not predicted:
        return None
    so_far = spent(trials)
    asked = predicted["trials"] + predicted.get("baselines", 0) + predicted.get("replicates", 0)
    return (
        f"Predicted for {asked} trainings: {span_text(predicted, 'train_s')} of training, "
        f"{span_text(predicted, 'wall_s')} of wall time. The {so_far.trials} that have ended took "
        f"{duration_text(so_far.train_s)} of training, {duration_text(so_far.wall_s)} of wall time."
    )


def span_text(predicted: dict[str, Any], name: str) -> str:
    """A prediction, as a range where it is one."""
    low, high = (duration_text(predicted[f"{name}_{end}"]) for end in ("low", "high"))
    return low if low == high else f"{low} to {high}"
