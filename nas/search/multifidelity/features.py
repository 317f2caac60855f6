"""Layouts as numbers: what a Gaussian process compares them by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from search_spaces.layout import Layout

Array = NDArray[np.float64]
OTHERS = ("stem", "head_dim", "window", "mlp_ratio", "norm", "dense")


class Features(NamedTuple):
    """Layouts in columns; a column in which all are alike is left out.

    Args:
        kinds: [N, K], whole numbers without an order: C or T of each stage, stem, norm and other
            options.
        sizes: [N, S], base-2 logarithms of depths, then of widths, that of the stem first.
        cost: [N], logarithm of the multiply-adds, of mean 0 and deviation 1.
    """

    kinds: Array
    sizes: Array
    cost: Array

    def rows(self, chosen: Sequence[int] | NDArray[np.int64]) -> Features:
        """Give some of the layouts."""
        index = np.asarray(chosen, dtype=np.int64)
        return Features(self.kinds[index], self.sizes[index], self.cost[index])


def features_of(layouts: Sequence[Layout], flops: Sequence[float]) -> Features:
    """Describe layouts.

    Args:
        layouts: any, of one space or several.
        flops: multiply-adds of each.
    """
    kinds = [
        [*(stage.kind for stage in layout.stages), *(getattr(layout, name) for name in OTHERS)]
        for layout in layouts
    ]
    widths = [(layout.stem_width or layout.widths[0], *layout.widths) for layout in layouts]
    sizes = [
        [*map(math.log2, (*layout.depths, *each))]
        for layout, each in zip(layouts, widths, strict=True)
    ]
    cost = np.log(np.maximum(np.asarray(flops, dtype=np.float64), 1.0))
    return Features(
        _varying(np.array([_numbered(column) for column in zip(*kinds, strict=True)]).T),
        _without_parallels(_varying(np.array(sizes, dtype=np.float64))),
        (cost - cost.mean()) / max(cost.std(), 1e-9),
    )


def _numbered(column: Sequence[object]) -> list[float]:
    """A number for each value of a column, by appearance."""
    numbers = {value: float(number) for number, value in enumerate(dict.fromkeys(column))}
    return [numbers[value] for value in column]


def _varying(table: Array) -> Array:
    return table[:, np.ptp(table, axis=0) > 0]


def _without_parallels(table: Array) -> Array:
    """Leave out a column that differs from an earlier one by a constant, as widths that double."""
    centred = table - table.mean(axis=0)
    kept = [
        column
        for column in range(table.shape[1])
        if not any(np.allclose(centred[:, column], centred[:, other]) for other in range(column))
    ]
    return table[:, kept]
