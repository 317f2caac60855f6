"""Which layouts may be suggested: those that fit and were not trained yet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from nas.search.caps import Caps
from nas.search.equalizer import Equalizer
from nas.utils.formatting import gib
from search_spaces.layout import Layout
from search_spaces.space import SearchSpace


class BudgetLike(Protocol):
    """What the filter asks of a budget; `nas.search.budget.Budget` is one."""

    @property
    def space(self) -> SearchSpace:
        """Space whose layouts are filtered."""

    @property
    def limit_bytes(self) -> int:
        """Limit that no layout may be predicted to exceed."""

    @property
    def equalizer(self) -> Equalizer | None:
        """Solves layouts for the limit, in mode `equalize`."""

    @property
    def caps(self) -> Caps:
        """Limits beside memory."""

    def predicted_bytes(self, layout: Layout) -> int:
        """Predict the peak memory of a layout's training, in bytes."""


class LayoutFilter:
    """Decides which layouts may be suggested, and counts those that were refused.

    Args:
        budget: the limit, the space and the prediction, which is asked for as seldom as possible,
            because depth only adds: what does not fit settles every deeper layout of the same kinds
            and widths, what fits settles every shallower one.
        trained_layout_ids: gives the ids of layouts that must not be suggested again, asked for
            anew each time.
        listed: layouts of the space; where there are any, nothing else remains to be suggested.
    """

    def __init__(
        self,
        budget: BudgetLike,
        trained_layout_ids: Callable[[], set[str]],
        listed: Sequence[Layout] = (),
    ) -> None:
        self.budget, self.space, self.listed = budget, budget.space, listed
        self.trained_layout_ids = trained_layout_ids
        self.over_budget = self.unequal = self.repeated = 0
        self.nearest: tuple[int, str] | None = None
        self._too_slow: set[Layout] = set()  # as measured, where the prediction said otherwise
        self._spare: Layout | None = (
            None  # one that may still be suggested, when somebody last looked
        )
        self.clear_cache()

    def clear_cache(self) -> None:
        """Forget what follows from predictions, because they have changed."""
        self._known: dict[Any, dict[tuple[int, ...], bool]] = defaultdict(dict)

    def fits(self, layout: Layout) -> bool:
        """Whether a layout is predicted to need at most the limit."""
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
        """Find what is trained for a suggestion: the layout itself or, in mode `equalize`, the one
        that the equalizer makes of it; None where it does not meet the budget and the limits beside
        it.
        """
        chosen = self._of_memory(layout)
        if chosen is None or chosen in self._too_slow or not self.budget.caps.met(chosen):
            return None
        return chosen

    def _of_memory(self, layout: Layout) -> Layout | None:
        if self.budget.equalizer:
            return self.budget.equalizer.solve(layout)
        return layout if self.fits(layout) else None

    def confirm(self, chosen: Layout) -> bool:
        """Whether what is about to be trained is within the limit of latency as measured, too; what
        is not is never suggested again.
        """
        if self.budget.caps.confirmed(chosen):
            return True
        self._too_slow.add(chosen)
        self.over_budget += 1
        return False

    def accept(self, layout: Layout) -> Layout | None:
        """Find what is trained for a suggestion, as `resolve` does, unless it was trained already
        or is measured to be too slow; None is a refusal, which is counted.
        """
        chosen = self.resolve(layout)
        if chosen is None and self.budget.equalizer and not self._of_memory(layout):
            self.unequal += 1
        elif chosen is None:
            self.over_budget += 1
        elif chosen.layout_id in self.trained_layout_ids():
            self.repeated += 1
        elif self.confirm(chosen):
            return chosen
        return None

    def parameters_of(self, suggestion: Layout, chosen: Layout) -> dict[str, Any]:
        """Find the parameters that a trial records: those of the layout `chosen`, which is trained,
        or, where the equalizer gave it widths that the space has not, those of the suggestion.
        """
        return self.space.encode(chosen if chosen in self.space else suggestion)

    def remaining(self, seed: int | None) -> Iterator[dict[str, Any]]:
        """Yield the parameters of everything that may still be suggested.

        Args:
            seed: of a random order; None: the order of the space. Listed layouts come in the order
                of the list, whatever the seed.
        """
        trained = self.trained_layout_ids()
        for layout in self.listed or (self.space if seed is None else self.space.shuffled(seed)):
            if not self.budget.equalizer and layout.layout_id in trained:  # spares the prediction
                continue
            if (chosen := self.resolve(layout)) and chosen.layout_id not in trained:
                yield self.parameters_of(layout, chosen)

    def exhausted(self) -> bool:
        """Whether nothing is left to suggest."""
        trained = self.trained_layout_ids()
        if self._spare is None or self._spare.layout_id in trained or not self.resolve(self._spare):
            self._spare = next(map(self._trained, self.confirmed(seed=0)), None)
        return self._spare is None

    def confirmed(self, seed: int | None) -> Iterator[dict[str, Any]]:
        """Yield of `remaining` what is within the limit of latency as measured, too."""
        for parameters in self.remaining(seed):
            if self.confirm(self._trained(parameters)):
                yield parameters

    def _trained(self, parameters: dict[str, Any]) -> Layout:
        """What is trained for parameters that may be suggested."""
        layout = self.resolve(self.space.decode(parameters))
        assert layout
        return layout

    def refusals(self) -> dict[str, Any]:
        """Count what was refused, by the names that `nas_refusals` has in `nas.study.schema`."""
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
