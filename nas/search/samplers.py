"""What is known is filtered, not learned: any Optuna sampler, made to suggest only layouts that fit
and were not trained yet.

A refused suggestion costs no trial. After a few of them the layout is drawn uniformly from what is
left of the space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from nas.search.layout_filter import LayoutFilter
from nas.study.optuna_internals import unwrap_bracket
from search_spaces.layout import Layout
from search_spaces.space import SearchSpace

RESAMPLES = 16
NSGA2_POPULATION = (
    12  # Optuna's 50 would leave a search of 40 trials in its first, random generation
)
INSISTED = 3  # times that a sampler may suggest the same refused layout for one trial


class BudgetedSampler(BaseSampler):
    """A sampler that asks another one until the filter accepts, then falls back on the rest of the
    space.

    Args:
        base: any sampler; it never hears of what was refused. None: one layout after the other.
        allowed: the filter.
        first: layouts to suggest before anything else, as far as the filter accepts them.
    """

    def __init__(
        self, base: BaseSampler | None, allowed: LayoutFilter, first: Sequence[Layout]
    ) -> None:
        self.base, self.allowed, self.first = base or RandomSampler(), allowed, list(first)
        self.in_order = base is None
        self.distributions = distributions(allowed.space)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        while self.first:
            layout = self.first.pop(0)
            if chosen := self.allowed.accept(layout):
                return self.allowed.parameters_of(layout, chosen)
        return self.choose(study, trial)

    def choose(self, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        """Parameters of the layout to train next, when those of `first` are through."""
        if self.in_order:
            return next(self.allowed.confirmed(seed=None))
        refused: list[Layout] = []
        for _ in range(RESAMPLES):
            layout = self.allowed.space.decode(self._suggest(study, trial))
            if chosen := self.allowed.accept(layout):
                return self.allowed.parameters_of(layout, chosen)
            refused.append(layout)
            if refused.count(layout) == INSISTED:
                break
        return next(self.allowed.confirmed(seed=trial.number))

    def _suggest(self, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        study = unwrap_bracket(study)
        known = self.base.infer_relative_search_space(study, trial)
        values = self.base.sample_relative(study, trial, known)
        return {
            name: values[name]
            if name in values
            else self.base.sample_independent(study, trial, name, distribution)
            for name, distribution in self.distributions.items()
        }

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self.base.sample_independent(
            unwrap_bracket(study), trial, param_name, param_distribution
        )

    def reseed_rng(self) -> None:
        self.base.reseed_rng()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self.base.before_trial(unwrap_bracket(study), trial)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self.base.after_trial(unwrap_bracket(study), trial, state, values)


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Describe the parameters of a space for Optuna: evenly spaced whole numbers are ordered,
    everything else is categorical.
    """
    return {name: _distribution(values) for name, values in space.parameters().items()}


def _distribution(values: tuple[Any, ...]) -> BaseDistribution:
    if all(type(value) is int for value in values):
        step = values[1] - values[0]
        if values == tuple(range(values[0], values[-1] + 1, step)):
            return IntDistribution(values[0], values[-1], step=step)
    return CategoricalDistribution(values)


def suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    """Get a parameter of a trial: the value that it has, or else what the sampler suggests."""
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step)
    assert isinstance(distribution, CategoricalDistribution)
    return trial.suggest_categorical(name, distribution.choices)


def make_sampler(name: str, seed: int) -> BaseSampler | None:
    """Make the Optuna sampler of a name.

    Args:
        name: one of `nas.config.choices.SamplerName`.
        seed: of its random numbers.

    Returns:
        The sampler; None for `grid`, which is no sampler but the order of the space.
    """
    if name == "grid":
        return None
    if name == "nsga2":
        return NSGAIISampler(population_size=NSGA2_POPULATION, seed=seed)
    samplers: dict[str, type[TPESampler | GPSampler | RandomSampler]] = {
        "tpe": TPESampler,
        "gp": GPSampler,
        "random": RandomSampler,
    }
    return samplers[name](seed=seed)
