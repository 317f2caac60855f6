"""Every candidate at the same memory: what Hong et al. (CVPR 2022, section 5.1.1) did by hand when
they gave C2-C2-T12-T4 the memory of Swin-T.

For a suggested layout one quantity is solved so that its prediction is the nearest below the
budget. `depth`: the third stage is made as deep as it can be, the fourth keeps its share of it.
`width`: the C stages are made as wide as they can be, doubling from stage to stage; T stages keep
their widths. A layout that is within the tolerance stays as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from search_spaces.layout import Layout
from search_spaces.space import SearchSpace

WIDTHS = range(8, 1025, 8)  # of the first stage, where C widths are solved
TRIED = 24  # layouts of a pattern, before it is said to have no solution


@dataclass(frozen=True)
class PatternFit:
    """How near the layouts of a pattern come to the budget.

    Attributes:
        pattern: kinds of the four stages, `CCTT`.
        layout: the layout of this pattern whose memory is nearest to the budget.
        peak_bytes: its predicted peak.
        solved: whether that is within the tolerance, below the budget.
    """

    pattern: str
    layout: Layout
    peak_bytes: int
    solved: bool


class Equalizer:
    """Solves layouts of one space for one budget.

    Args:
        space: whose depths may be chosen.
        budget_bytes: the limit above.
        tolerance: how far below it, as a fraction, a layout may stay.
        vary: `depth` or `width`.
        predict: peak bytes of a layout; grows with depth and with width.
    """

    def __init__(
        self,
        space: SearchSpace,
        budget_bytes: int,
        *,
        tolerance: float,
        vary: str,
        predict: Callable[[Layout], int],
    ) -> None:
        self.space, self.budget_bytes, self.predict = space, budget_bytes, predict
        self.least_bytes = budget_bytes * (1 - tolerance)
        self.family = self._depths if vary == "depth" else self._widths
        self._known: dict[Layout, tuple[Layout, int]] = {}

    def solve(self, layout: Layout) -> Layout | None:
        """Find what to train for a suggestion; None where nothing of its family comes within the
        tolerance.
        """
        nearest, peak_bytes = self.nearest(layout)
        return nearest if self.within(peak_bytes) else None

    def within(self, peak_bytes: int) -> bool:
        """Whether a prediction is within the tolerance, below the budget."""
        return self.least_bytes <= peak_bytes <= self.budget_bytes

    def nearest(self, layout: Layout) -> tuple[Layout, int]:
        """Find the largest layout of a suggestion's family that fits, or the smallest where none
        does, with its predicted bytes. A suggestion within the tolerance stays as it is.
        """
        if layout not in self._known:
            self._known[layout] = self._nearest(layout)
        return self._known[layout]

    def patterns(self) -> list[PatternFit]:
        """Find for every pattern of the space a layout within the tolerance or, where the ends of
        the space or `TRIED` random suggestions give none, the nearest seen.
        """
        return [self._fit(pattern) for pattern in self.space.patterns]

    def _fit(self, pattern: str) -> PatternFit:
        ends = [list(self.space.shallowest()), list(self.space.deepest())]
        smallest, largest = (
            [self.nearest(layout) for layout in end if layout.pattern == pattern] for end in ends
        )
        out_of_reach = all(size > self.budget_bytes for _, size in smallest) or all(
            size < self.least_bytes for _, size in largest
        )
        suggestions = (
            [] if out_of_reach else (x for x in self.space.shuffled(0) if x.pattern == pattern)
        )
        seen = []
        for layout in itertools.islice(suggestions, TRIED):
            nearest, peak_bytes = self.nearest(layout)
            if self.within(peak_bytes):
                return PatternFit(pattern, nearest, peak_bytes, solved=True)
            seen.append((nearest, peak_bytes))
        nearest, peak_bytes = min(
            [*seen, *smallest, *largest], key=lambda one: abs(self.budget_bytes - one[1])
        )
        return PatternFit(pattern, nearest, peak_bytes, self.within(peak_bytes))

    def _nearest(self, layout: Layout) -> tuple[Layout, int]:
        if self.within(peak_bytes := self.predict(layout)):
            return layout, peak_bytes
        return largest_that_fits(self.family(layout), self.budget_bytes, self.predict)

    def _depths(self, layout: Layout) -> Sequence[Layout]:
        """Ascending in the third depth; the fourth is the choice nearest to its share."""
        *_, third, fourth = layout.depths
        share, fourths = fourth / third, self.space.depths[3]
        family = []
        for depth in self.space.depths[2]:
            last = min(fourths, key=lambda choice: abs(choice - share * depth))
            family.append(layout.with_depths((*layout.depths[:2], depth, last)))
        return family

    def _widths(self, layout: Layout) -> Sequence[Layout]:
        """Ascending in the widths of the C stages."""
        if "C" not in layout.pattern:
            return [layout]
        stem_width = layout.stem_width if "stem_width" in self.space.layout_defaults else None
        family = []
        for width in WIDTHS:
            stages = [
                replace(stage, width=width * 2**index) if stage.kind == "C" else stage
                for index, stage in enumerate(layout.stages)
            ]
            family.append(replace(layout, stages=tuple(stages), stem_width=stem_width))
        return family


def largest_that_fits(
    family: Sequence[Layout], budget_bytes: int, predict: Callable[[Layout], int]
) -> tuple[Layout, int]:
    """Find the last layout of a family that fits, or else the first, by bisection.

    Args:
        family: ascending in what they need; not empty.
        budget_bytes: the limit.
        predict: peak bytes of a layout.

    Returns:
        The layout and its predicted bytes.
    """
    low, high = 0, len(family) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if predict(family[middle]) <= budget_bytes:
            low = middle
        else:
            high = middle - 1
    return family[low], predict(family[low])
