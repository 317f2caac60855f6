"""Layouts drawn from a space, with what each costs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from nas.search.budget import SAMPLED, Budget
from nas.search.layout_filter import LayoutFilter
from search_spaces.layout import Layout


@dataclass(frozen=True)
class LayoutCost:
    """A layout and what it costs.

    Attributes:
        layout: the layout.
        flops: multiply-adds of one image of the largest batch.
        memory_bytes: predicted peak memory of its training.
    """

    layout: Layout
    flops: int
    memory_bytes: int

    @classmethod
    def of(cls, layout: Layout, budget: Budget) -> Self:
        """Count and predict what a layout costs in a search with this budget."""
        return cls(layout, budget.cost(layout).flops, budget.predicted_bytes(layout))


def uniform_sample(budget: Budget) -> list[LayoutCost]:
    """Draw layouts that a search may train uniformly from its space.

    Args:
        budget: of the search, with its space and seed.

    Returns:
        What is left of `SAMPLED` layouts, or one where nothing is; by rising FLOPs.
    """
    allowed, seed = LayoutFilter(budget, set), budget.spec.search.seed
    some = itertools.islice(budget.space.shuffled(seed), SAMPLED)
    settled = dict.fromkeys(map(allowed.resolve, some))
    if not any(settled):
        settled = dict.fromkeys(
            [allowed.resolve(budget.space.decode(next(allowed.remaining(seed))))]
        )
    return sorted(
        (LayoutCost.of(layout, budget) for layout in settled if layout),
        key=lambda each: each.flops,
    )


def evenly_spaced(ordered: Sequence[LayoutCost], count: int) -> list[LayoutCost]:
    """Pick `count` of a sequence: the first, the last and some between, evenly; all where there are
    fewer.
    """
    places = {round(i * (len(ordered) - 1) / (count - 1)) for i in range(count)}
    return [ordered[place] for place in sorted(places)]
