"""The paper's schedule (Hong et al., section 4.4): train at the initial rate until the validation
mAP saturates, decay, go on until it saturates again.

The paper gives neither the patience nor the number of decays; here both are settings of the recipe.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from nas.config.recipe import Recipe


@dataclass(frozen=True)
class Saturation:
    """What has been seen: the best mAP (a fraction), the epochs since then, the decays so far, and
    whether it is over.
    """

    best: float = 0.0
    waited: int = 0
    decays: int = 0
    converged: bool = False

    def after(self, value: float, recipe: Recipe) -> Saturation:
        """The state after an epoch with validation mAP `value`; only `schedule: saturate` ever
        changes it.

        Saturated: for `patience` epochs no gain of `min_gain` over the best. The first `decays`
        times the rate falls, then training has converged.
        """
        if recipe.schedule != "saturate":
            return self
        if value >= self.best + recipe.min_gain:
            return replace(self, best=value, waited=0)
        if self.waited + 1 < recipe.patience:
            return replace(self, waited=self.waited + 1)
        if self.decays < recipe.decays:
            return replace(self, waited=0, decays=self.decays + 1)
        return replace(self, waited=self.waited + 1, converged=True)
