"""The paper's schedule (Hong et al., section 4.4): train at the initial rate until the validation
mAP saturates, decay, go on until it saturates again.

The paper gives neither the patience nor the number of decays; here both are settings of the recipe.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from nas.config.recipe import Recipe


@dataclass(frozen=True)
class Saturation:
    """State of the schedule `saturate`.

    Args:
        best: the highest score so far, a fraction: mAP, in pre-training top-1.
        waited: epochs since then.
        decays: how often the rate has fallen.
        converged: whether training is over.
    """

    best: float = 0.0
    waited: int = 0
    decays: int = 0
    converged: bool = False

    def after(self, value: float, recipe: Recipe, *, warm: bool = True) -> Saturation:
        """State after one more epoch; only `schedule: saturate` ever changes it.

        Saturated means that for `patience` epochs there was no gain of `min_gain` over the best.
        The first `decays` times the rate falls, then training has converged. An epoch of the
        warm-up, or one before the score has risen for the first time, is not waited for.

        Args:
            value: validation score of the epoch, a fraction.
            recipe: of the training.
            warm: whether the warm-up was over when the epoch ended.
        """
        if recipe.schedule != "saturate":
            return self
        if value >= self.best + recipe.min_gain:
            return replace(self, best=value, waited=0)
        if not warm or not self.best:
            return self
        if self.waited + 1 < recipe.patience:
            return replace(self, waited=self.waited + 1)
        if self.decays < recipe.decays:
            return replace(self, waited=0, decays=self.decays + 1)
        return replace(self, waited=self.waited + 1, converged=True)


def lr_at(step: float, steps_per_epoch: int, recipe: Recipe, decays: int = 0) -> float:
    """Learning rate of a step: a linear warm-up, then the recipe's schedule.

    `constant` stays; `step` multiplies by `decay_factor` after each of `decay_epochs`; `saturate`
    has done so `decays` times (see `Saturation`); `cosine` falls to 0 at the last step.

    Args:
        step: of the whole training, from 0; a fraction where the schedule is stretched.
        steps_per_epoch: steps of one epoch.
        recipe: of the training.
        decays: how often `saturate` has fallen.
    """
    total = recipe.epochs * steps_per_epoch
    warmup = recipe.warmup(steps_per_epoch)
    if step < warmup:
        return recipe.lr * (step + 1) / (warmup + 1)
    if recipe.schedule == "cosine":
        return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
    if recipe.schedule == "step":
        passed = sum(step >= epoch * steps_per_epoch for epoch in recipe.decay_epochs)
        return recipe.lr * recipe.decay_factor**passed
    return recipe.lr * recipe.decay_factor**decays
