"""Scores of trainings at their last epoch, from what each has shown so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LOSS_WEIGHT = 0.7  # of the training loss in a score; the rest is of the mAP
LEAST_AGREEMENT = 0.3  # rank correlation with the mAP, below which the loss does not count
LEAST_PAIRS = 6  # of loss and mAP, from which on their agreement is judged


@dataclass(frozen=True)
class Curve:
    """One training as far as it has come.

    Args:
        scores: mAP after each epoch, by the epoch's number from 1; at least one.
        losses: mean training loss of each epoch, likewise; may lack any.
        complete: it was trained to its end.
    """

    scores: Mapping[int, float]
    losses: Mapping[int, float]
    complete: bool = False

    @property
    def last(self) -> int:
        """The last epoch that was scored."""
        return max(self.scores)


def projected_scores(curves: Sequence[Curve], epochs: int) -> tuple[Array, Array]:
    """Project trainings to their last epoch, each by the median of the steps that others took.

    Args:
        curves: trainings, in any state.
        epochs: of a whole training.

    Returns:
        [N], scores without unit, higher is better: of mAP and loss together while the loss agrees
        with the mAP, else of the mAP alone; and [N], the share of a training that each has still
        before it, 0 for complete ones.
    """
    left = np.array([0.0 if each.complete else 1 - each.last / epochs for each in curves])
    maps = _standard(_projected([each.scores for each in curves], curves))
    losses = [{epoch: -loss for epoch, loss in each.losses.items()} for each in curves]
    if not losses or any(each.last not in each.losses for each in curves):
        return maps, np.maximum(left, 0.0)
    if _agreement(curves) < LEAST_AGREEMENT:
        return maps, np.maximum(left, 0.0)
    by_loss = _standard(_projected(losses, curves))
    return (1 - LOSS_WEIGHT) * maps + LOSS_WEIGHT * by_loss, np.maximum(left, 0.0)


def map_scale(curves: Sequence[Curve]) -> tuple[float, float]:
    """Mean and standard deviation of the projected mAPs of trainings, low outliers drawn in as for
    `projected_scores`: what turns scores without unit back into mAP.
    """
    maps = _drawn_in(_projected([each.scores for each in curves], curves))
    return float(maps.mean()), float(maps.std())


def _projected(values: Sequence[Mapping[int, float]], curves: Sequence[Curve]) -> Array:
    """The last value of each, and the median steps of others beyond it; of one that is complete,
    perhaps before the last epoch, its own.
    """
    steps = np.zeros(max(curve.last for curve in curves) + 1)
    for epoch in {epoch for v in values for epoch in v if epoch - 1 in v}:
        taken = [v[epoch] - v[epoch - 1] for v in values if epoch in v and epoch - 1 in v]
        steps[epoch] = np.median(taken)
    beyond = [0.0 if curve.complete else steps[curve.last + 1 :].sum() for curve in curves]
    reached = [each[curve.last] for each, curve in zip(values, curves, strict=True)]
    projected: Array = np.array(reached) + np.array(beyond)
    return projected


def _standard(values: Array) -> Array:
    """Mean 0 and deviation 1, after low outliers are drawn in."""
    drawn = _drawn_in(values)
    standard: Array = (drawn - drawn.mean()) / max(float(drawn.std()), 1e-9)
    return standard


def _drawn_in(values: Array) -> Array:
    """Raise low outliers: twice as far below the median as the best tenth is above it is as bad as
    can be.
    """
    median = np.median(values)
    low = median - 2 * max(float(np.quantile(values, 0.9) - median), 1e-3)
    drawn: Array = np.maximum(values, low)
    return drawn


def _agreement(curves: Sequence[Curve]) -> float:
    """Rank correlation of loss and mAP among trainings at equal epochs; 1 while there are few."""
    from scipy.stats import spearmanr  # takes a second, which a search that begins need not wait

    pairs: list[tuple[float, float]] = []
    for epoch in sorted({epoch for each in curves for epoch in each.scores}):
        here = [c for c in curves if epoch in c.scores and epoch in c.losses]
        if len(here) > 1:
            maps = np.array([each.scores[epoch] for each in here])
            losses = np.array([each.losses[epoch] for each in here])
            pairs += zip(maps - np.median(maps), np.median(losses) - losses, strict=True)
    columns = np.array(pairs).reshape(-1, 2).T
    if len(pairs) < LEAST_PAIRS or not np.ptp(columns, axis=1).all():
        return 1.0  # of too few, or all alike, nothing follows
    return float(spearmanr(*columns).statistic)
