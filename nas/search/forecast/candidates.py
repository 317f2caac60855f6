"""Which layouts a search will train, as far as that is known before it: the sampler is asked,
without a study in a database.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import optuna

from nas.search.baselines import equalized
from nas.search.budget import SAMPLED, Budget
from nas.search.samplers import BudgetedSampler, LayoutFilter, distributions, make_sampler
from search_spaces.layout import Layout

optuna.logging.set_verbosity(optuna.logging.WARNING)  # the study that is asked is nobody's concern
ASKED = 10  # suggestions that a sampler makes before it learns from results


@dataclass(frozen=True)
class LayoutCost:
    """A layout, the multiply-adds of one image, and the predicted peak of its training."""

    layout: Layout
    flops: int
    memory_bytes: int


def first_suggestions(budget: Budget) -> tuple[list[LayoutCost], int]:
    """What a new search trains before its sampler learns from results, and how many candidates
    there will be in all.
    """
    search, taken, first = budget.spec.search, set[str](), list[LayoutCost]()
    tried = [Layout.parse(text) for text in search.try_first]
    listed = tried if search.try_only else []
    allowed = LayoutFilter(budget, lambda: taken, listed)
    base = None if listed else make_sampler(search.sampler, search.seed)
    sampler = BudgetedSampler(base, allowed, [] if listed else tried)
    study = optuna.create_study(sampler=sampler, directions=["maximize"] * len(search.objectives))
    wanted = min(search.trials, ASKED) if base else search.trials
    while len(first) < wanted and not allowed.exhausted():
        layout = allowed.resolve(budget.space.decode(study.ask(distributions(budget.space)).params))
        assert layout
        taken.add(layout.layout_id)
        first.append(_sized(budget, layout))
    return first, min(search.trials, len(budget.space)) if len(first) == wanted else len(first)


def uniform_sample(budget: Budget) -> list[LayoutCost]:
    """Layouts that a search may train, drawn uniformly from the space, by rising FLOPs; where few
    may be, at least one.
    """
    allowed, seed = LayoutFilter(budget, set), budget.spec.search.seed
    some = itertools.islice(budget.space.shuffled(seed), SAMPLED)
    settled = dict.fromkeys(map(allowed.resolve, some))
    if not any(settled):
        settled = dict.fromkeys(
            [allowed.resolve(budget.space.decode(next(allowed.remaining(seed))))]
        )
    return sorted(
        (_sized(budget, layout) for layout in settled if layout), key=lambda each: each.flops
    )


def baselines(budget: Budget) -> list[LayoutCost]:
    """Those that the search trains beside its candidates."""
    return (
        [_sized(budget, each.layout) for each in equalized(budget)]
        if budget.spec.wants_baselines
        else []
    )


def spread(ordered: Sequence[LayoutCost], count: int) -> list[LayoutCost]:
    """`count` of them: the first, the last and some between, evenly; all where there are fewer."""
    places = {round(i * (len(ordered) - 1) / (count - 1)) for i in range(count)}
    return [ordered[place] for place in sorted(places)]


def _sized(budget: Budget, layout: Layout) -> LayoutCost:
    return LayoutCost(layout, budget.cost(layout).flops, budget.predicted_bytes(layout))
