"""Suggests the layout whose training promises most, by all that trainings have shown so far."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
from optuna.samplers import RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from nas.search.layout_filter import LayoutFilter
from nas.search.multifidelity.design import designed, most_balanced
from nas.search.multifidelity.observations import Observations
from nas.search.multifidelity.prior import Prior
from nas.search.samplers import BudgetedSampler
from nas.study.optuna_internals import unwrap_bracket
from search_spaces.layout import Layout

POOL = 400  # layouts that are compared for a suggestion, drawn from those that are left
BEST = 5  # trials whose neighbours are compared too
LEAST_OBSERVED = 3

Parameters = dict[str, Any]


class MultiFidelitySampler(BudgetedSampler):
    """A Gaussian process over layouts that learns from the mAP and the training loss of every epoch
    of every trial, running and stopped ones included.

    Args:
        allowed: the filter.
        first: layouts to suggest before anything else, as far as the filter accepts them.
        flops: multiply-adds of a layout.
        epochs: of a whole training.
        trials: that the search is to have.
        seed: of its random numbers.
        prior: what earlier studies say; the layouts that it expects most of are half of those that
            are chosen before results are learnt from.
    """

    def __init__(
        self,
        allowed: LayoutFilter,
        first: Sequence[Layout],
        *,
        flops: Callable[[Layout], float],
        epochs: int,
        trials: int,
        seed: int,
        prior: Prior | None = None,
    ) -> None:
        super().__init__(RandomSampler(seed=seed), allowed, first)
        self.flops, self.epochs, self.seed = cache(flops), epochs, seed
        self.designed, self.prior = designed(trials), prior

    def choose(self, study: Study, trial: FrozenTrial) -> Parameters:
        """Parameters of the layout to train next: the most promising that is fast enough as
        measured, too.
        """
        while True:
            parameters = self._promising(study, trial)
            if self.allowed.confirm(self._trained(parameters)):
                return parameters

    def _promising(self, study: Study, trial: FrozenTrial) -> Parameters:
        seen = Observations.of(unwrap_bracket(study), self.epochs)
        pool = self._pool(seen, seed=self.seed + trial.number)
        known = [*seen.trials, *seen.pending]
        if self.prior and len(known) < (self.designed + 1) // 2:
            expected = self.prior.means(*self._costed(pool)).mean(axis=1)
            return pool[int(expected.argmax())]
        if len(known) < self.designed or len(seen.trials) < LEAST_OBSERVED:
            earlier = [each.params for each in known]
            return pool[most_balanced(pool, earlier, self.seed + trial.number)]
        model = seen.model(self.epochs, *self._costed(pool), self.prior)
        best = float(model.mean[: len(seen.trials)].max())
        promise = model.expected_improvement(best)[len(known) :]
        return pool[int(np.argmax(promise))]

    def _pool(self, seen: Observations, seed: int) -> list[Parameters]:
        """What is left of the space, or a part of it, and the neighbours of the best trials."""
        drawn = list(itertools.islice(self.allowed.remaining(seed=seed), POOL))
        if len(drawn) < POOL:
            return drawn
        order = np.argsort([-curve.scores[curve.last] for curve in seen.curves])[:BEST]
        near = itertools.chain.from_iterable(self._near(seen.trials[row].params) for row in order)
        return [*drawn, *near]

    def _near(self, parameters: Parameters) -> Iterator[Parameters]:
        """Parameters that differ in one value and may still be suggested."""
        trained = self.allowed.trained_layout_ids()
        for name, values in self.allowed.space.parameters().items():
            for value in values:
                if name not in parameters or value == parameters[name]:
                    continue
                other = {**parameters, name: value}
                layout = self.allowed.resolve(self.allowed.space.decode(other))
                if layout and layout.layout_id not in trained:
                    yield other

    def _costed(self, pool: Sequence[Parameters]) -> tuple[list[Layout], list[float]]:
        """What is trained for each, and its multiply-adds."""
        layouts = [self._trained(parameters) for parameters in pool]
        return layouts, [self.flops(layout) for layout in layouts]

    def _trained(self, parameters: Parameters) -> Layout:
        """The layout that is trained where these parameters are suggested."""
        layout = self.allowed.space.decode(parameters)
        return self.allowed.resolve(layout) or layout
