"""Stops candidates that are unlikely to become the best."""

from __future__ import annotations

import numpy as np
from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial

from nas.search.multifidelity.observations import Observations
from nas.search.multifidelity.prior import Prior

LEAST_PROBABILITY = 0.3  # of being better than the best of the others
FIRST_EPOCH = 2  # a single epoch's score is mostly noise
UNSTOPPED = 4  # the first candidates, so that some are complete
LEAST_OTHERS = 3


class MultiFidelityPruner(BasePruner):
    """A pruner by the model of `MultiFidelitySampler`, whichever sampler suggests: a candidate ends
    when the probability that it is better than the best of the others is below 0.3. Nothing ends
    before something is complete, and none of the first four candidates.

    Args:
        epochs: of a whole training.
        unjudged_epochs: in which no candidate is stopped.
        prior: what earlier studies say.
    """

    def __init__(self, epochs: int, unjudged_epochs: int, prior: Prior | None = None) -> None:
        self.epochs, self.first_epoch = epochs, max(FIRST_EPOCH, unjudged_epochs + 1)
        self.prior = prior

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        if trial.last_step is None or trial.last_step < self.first_epoch:
            return False
        seen = Observations.of(study, self.epochs)
        numbers = [each.number for each in seen.trials]
        if trial.number in sorted(numbers)[:UNSTOPPED] or len(numbers) <= LEAST_OTHERS:
            return False
        if trial.number not in numbers or not any(curve.complete for curve in seen.curves):
            return False
        row, model = numbers.index(trial.number), seen.model(self.epochs, prior=self.prior)
        others = np.array([other for other in range(len(numbers)) if other != row])
        best = int(others[model.mean[others].argmax()])
        return model.probability_above(row, best) < LEAST_PROBABILITY
