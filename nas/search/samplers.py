"""What is known is filtered, not learned: any Optuna sampler, made to suggest only layouts that fit
and were not trained yet.

A refused suggestion costs no trial. After a few of them the layout is drawn uniformly from what is
left of the space.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from nas.search.equalizer import Equalizer
from nas.utils.formatting import gib
from search_spaces.layout import Layout
from search_spaces.space import SearchSpace

RESAMPLES = 16
NSGA2_POPULATION = (
    12  # Optuna's 50 would leave a search of 40 trials in its first, random generation
)
INSISTED = 3  # times that a sampler may suggest the same refused layout for one trial


class BudgetLike(Protocol):
    """What the filter needs to know; `nas.search.budget.Budget` is one."""

    space: SearchSpace
    limit_bytes: int
    equalizer: Equalizer | None

    def predicted_bytes(self, layout: Layout) -> int:
        """Peak bytes of a layout."""


class LayoutFilter:
    """Which layouts may be suggested, and a count of those that were not.

    Args:
        budget: the limit, the space and the prediction, which is asked for as seldom as possible,
            because depth only adds: what does not fit settles every deeper layout of the same kinds
            and widths, what fits settles every shallower one.
        taken: ids of the layouts that must not be suggested again, asked for anew each time.
        listed: layouts of the space; where there are any, nothing else remains to be suggested.
    """

    def __init__(
        self, budget: BudgetLike, taken: Callable[[], set[str]], listed: Sequence[Layout] = ()
    ) -> None:
        self.budget, self.space, self.taken, self.listed = budget, budget.space, taken, listed
        self.over_budget = self.unequal = self.repeated = 0
        self.nearest: tuple[int, str] | None = None
        self._spare: Layout | None = (
            None  # one that may still be suggested, when somebody last looked
        )
        self.clear_cache()

    def clear_cache(self) -> None:
        """The predictions have changed."""
        self._known: dict[Any, dict[tuple[int, ...], bool]] = defaultdict(dict)

    def fits(self, layout: Layout) -> bool:
        """Whether the prediction is within the budget."""
        known = self._known[(layout.pattern, layout.widths, layout.stem)]
        for depths, fit in known.items():
            pairs = list(zip(layout.depths, depths, strict=True))
            if all(mine <= other if fit else mine >= other for mine, other in pairs):
                return fit
        peak_bytes = self.budget.predicted_bytes(layout)
        if peak_bytes > self.budget.limit_bytes and (
            self.nearest is None or peak_bytes < self.nearest[0]
        ):
            self.nearest = (peak_bytes, str(layout))
        known[layout.depths] = peak_bytes <= self.budget.limit_bytes
        return known[layout.depths]

    def resolve(self, layout: Layout) -> Layout | None:
        """What is trained for a suggestion: the layout itself, or the one that the equalizer makes
        of it.
        """
        if self.budget.equalizer:
            return self.budget.equalizer.solve(layout)
        return layout if self.fits(layout) else None

    def accept(self, layout: Layout) -> Layout | None:
        """The same, if it was not trained yet; a refusal is counted."""
        chosen = self.resolve(layout)
        if chosen is None and self.budget.equalizer:
            self.unequal += 1
        elif chosen is None:
            self.over_budget += 1
        elif chosen.layout_id in self.taken():
            self.repeated += 1
            return None
        return chosen

    def parameters_of(self, suggestion: Layout, chosen: Layout) -> dict[str, Any]:
        """What a trial records: the parameters of what is trained or, where it has widths of its
        own, of the suggestion.
        """
        return self.space.encode(chosen if chosen in self.space else suggestion)

    def remaining(self, seed: int | None) -> Iterator[dict[str, Any]]:
        """Parameters of what may still be suggested: those listed, in that order; else in random
        order or, without a seed, in that of the space.
        """
        taken = self.taken()
        for layout in self.listed or (self.space if seed is None else self.space.shuffled(seed)):
            if not self.budget.equalizer and layout.layout_id in taken:  # spares the prediction
                continue
            if (chosen := self.resolve(layout)) and chosen.layout_id not in taken:
                yield self.parameters_of(layout, chosen)

    def exhausted(self) -> bool:
        """Nothing is left to suggest."""
        taken = self.taken()
        if self._spare is None or self._spare.layout_id in taken or not self.resolve(self._spare):
            parameters = next(self.remaining(seed=0), None)
            self._spare = (
                None if parameters is None else self.resolve(self.space.decode(parameters))
            )
        return self._spare is None

    def refusals(self) -> dict[str, Any]:
        """The counts, as they go into the study."""
        nearest = (
            {"layout": self.nearest[1], "memory_predicted_gib": gib(self.nearest[0])}
            if self.nearest
            else None
        )
        counts = {
            "over_budget": self.over_budget,
            "unequal": self.unequal,
            "repeated": self.repeated,
        }
        return {**counts, "nearest_over_budget": nearest}


class BudgetedSampler(BaseSampler):
    """Asks `base` until the filter accepts, then falls back on the rest of the space.

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
        if self.in_order:
            return next(self.allowed.remaining(seed=None))
        refused: list[Layout] = []
        for _ in range(RESAMPLES):
            layout = self.allowed.space.decode(self._suggest(study, trial))
            if chosen := self.allowed.accept(layout):
                return self.allowed.parameters_of(layout, chosen)
            refused.append(layout)
            if refused.count(layout) == INSISTED:
                break
        return next(self.allowed.remaining(seed=trial.number))

    def _suggest(self, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        study = _unwrap_bracket(study)
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
            _unwrap_bracket(study), trial, param_name, param_distribution
        )

    def reseed_rng(self) -> None:
        self.base.reseed_rng()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self.base.before_trial(_unwrap_bracket(study), trial)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self.base.after_trial(_unwrap_bracket(study), trial, state, values)


def _unwrap_bracket(study: Study) -> Study:
    """The study itself, which knows its candidates, in place of the bracket that Optuna makes of it
    for Hyperband.

    Samplers read the whole study through a bracket, too, but as the database has it, with baselines
    and replicates.
    """
    return getattr(study, "_study", study)


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Optuna's view of a space: evenly spaced whole numbers are ordered, everything else is
    categorical.
    """
    return {name: _distribution(values) for name, values in space.parameters().items()}


def _distribution(values: tuple[Any, ...]) -> BaseDistribution:
    if all(type(value) is int for value in values):
        step = values[1] - values[0]
        if values == tuple(range(values[0], values[-1] + 1, step)):
            return IntDistribution(values[0], values[-1], step=step)
    return CategoricalDistribution(values)


def suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    """A parameter of a trial: what it has, or else what the sampler says."""
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step)
    assert isinstance(distribution, CategoricalDistribution)
    return trial.suggest_categorical(name, distribution.choices)


def make_sampler(name: str, seed: int) -> BaseSampler | None:
    """A sampler by its name in `search_spaces.catalog.SAMPLERS`; `grid` is none, but the order of
    the space.
    """
    if name == "grid":
        return None
    if name == "nsga2":
        return NSGAIISampler(population_size=NSGA2_POPULATION, seed=seed)
    return {"tpe": TPESampler, "gp": GPSampler, "random": RandomSampler}[name](seed=seed)
