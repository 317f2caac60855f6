"""What ends a candidate early: Optuna's pruners, on epochs or on what training has cost.

Candidates differ in the cost of an epoch. Pruners at equal cost hold a candidate against what
others had reached after as many multiply-adds (epochs x the trial's `flops`), so that a cheap
layout is not judged by an expensive one that has used several times as much. The study reports by
epoch as ever: only what the pruner sees is laid out anew.
"""

from __future__ import annotations

import copy
import statistics

import numpy as np
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.study import Study
from optuna.trial import FrozenTrial

from nas.search.budget import Budget
from nas.search.layout_sample import uniform_sample
from nas.search.multifidelity.prior import Prior
from nas.search.multifidelity.pruner import MultiFidelityPruner
from nas.study.optuna_internals import MappedStudy

REDUCTION = 3  # of Optuna's Hyperband, unless told otherwise
MEDIAN_STARTUP = 4  # candidates that the median pruner lets through to begin with


def make_pruner(
    name: str,
    unjudged_epochs: int,
    epochs: int,
    at_cost_in: Budget | None = None,
    prior: Prior | None = None,
) -> BasePruner:
    """Make the Optuna pruner of a name.

    Args:
        name: one of `nas.config.choices.PrunerName`.
        unjudged_epochs: epochs with a rising learning rate, and those after them without a score,
            in which no candidate is stopped.
        epochs: that a candidate is trained for, at most.
        at_cost_in: compare at equal cost, in a search with this budget; None: at equal epochs.
        prior: what earlier studies say, to `multifidelity` alone.
    """
    first = unjudged_epochs + 1
    if name == "hyperband":
        resources = {"min_resource": min(first, epochs), "max_resource": epochs}
        return (
            HyperbandAtCost(**resources, typical_flops=typical_flops(at_cost_in))
            if at_cost_in
            else HyperbandPruner(**resources)
        )
    if name == "multifidelity":
        return MultiFidelityPruner(epochs, unjudged_epochs, prior)
    if name == "median":
        kind = MedianAtCost if at_cost_in else MedianPruner
        return kind(n_startup_trials=MEDIAN_STARTUP, n_warmup_steps=first)
    return NopPruner()


def typical_flops(budget: Budget) -> float:
    """Compute the median multiply-adds of one image, of a uniform sample of the layouts that a
    search may train.

    An epoch of a layout of this cost is the unit of Hyperband's rungs: half of the candidates reach
    a rung later than by epochs, half earlier. It is known before anything is trained, so that rungs
    do not move.
    """
    return statistics.median(each.flops for each in uniform_sample(budget))


class MedianAtCost(MedianPruner):
    """Optuna's median pruner with others' scores taken at the cost that the candidate has come to,
    instead of at its epoch; cost is epochs times the trial's `flops`.
    """

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        return trial.last_step is not None and super().prune(
            _at_cost(study, _stored(study, trial), trial.last_step), trial
        )


class HyperbandAtCost(HyperbandPruner):
    """Optuna's Hyperband with rungs at equal cost: at so many epochs of a layout of
    `typical_flops`.

    A candidate is judged at each rung that it has passed, in order, by its score there:
    interpolated between its epochs, and that of epoch `min_resource` where the rung lies before it,
    so that no score of the warm-up counts. Rungs end below `max_resource`, as they do by epochs:
    beyond, a candidate has cost as much as a typical one that is trained in full. Brackets are
    those by epochs. A subclass, because Optuna's samplers learn from each bracket alone if they
    find a Hyperband.
    """

    def __init__(self, min_resource: int, max_resource: int, typical_flops: float) -> None:
        super().__init__(min_resource, max_resource, REDUCTION)
        self.first_epoch, self.typical_flops = min_resource, typical_flops
        self.rungs: list[int] = []
        while (rung := min_resource * REDUCTION ** len(self.rungs)) < max_resource:
            self.rungs.append(rung)

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        if trial.last_step is None or trial.last_step < self.first_epoch:
            return False
        judged = {
            epoch: score
            for epoch, score in trial.intermediate_values.items()
            if epoch >= self.first_epoch
        }
        for rung in self.rungs:
            known = _stored(
                study, trial
            )  # again each time: Optuna notes there which rungs are passed
            epoch = rung * self.typical_flops / known.user_attrs["flops"]
            if epoch > trial.last_step:
                return False
            if super().prune(study, _with_scores(known, {rung: _interpolated(judged, epoch)})):
                return True
        return False


def _at_cost(study: Study, trial: FrozenTrial, epoch: int) -> Study:
    """The study as a candidate at an epoch is to see it: completed others have, at this epoch, the
    score that they had reached at its cost; their last one where they cost less in all, none where
    their first epoch cost more.
    """
    spent_flops = epoch * trial.user_attrs["flops"]

    def at_this_cost(other: FrozenTrial) -> FrozenTrial:
        scores, flops = other.intermediate_values, other.user_attrs.get("flops")
        if not scores or not flops or spent_flops < min(scores) * flops:
            return _with_scores(other, {})
        return _with_scores(other, {epoch: _interpolated(scores, spent_flops / flops)})

    return MappedStudy(study, at_this_cost)


def _interpolated(scores: dict[int, float], epoch: float) -> float:
    """A score between two epochs, linearly; the first or the last one beyond them."""
    epochs = sorted(scores)
    return float(np.interp(epoch, epochs, [scores[each] for each in epochs]))


def _stored(study: Study, trial: FrozenTrial) -> FrozenTrial:
    """The trial with all that was written of it, of which Optuna shows a pruner only what went
    through its own `Trial`.
    """
    return next(each for each in study.get_trials(deepcopy=False) if each.number == trial.number)


def _with_scores(trial: FrozenTrial, scores: dict[int, float]) -> FrozenTrial:
    """A copy with these scores, each at its step."""
    changed = copy.copy(trial)
    changed.intermediate_values = scores
    return changed
