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
        prior: [N, P], scores that earlier studies predict, a column for each study.
    """

    kinds: Array
    sizes: Array
    cost: Array
    prior: Array

    def rows(self, chosen: Sequence[int] | NDArray[np.int64]) -> Features:
        """Give some of the layouts."""
        index = np.asarray(chosen, dtype=np.int64)
        return Features(*(column[index] for column in self))


def features_of(layouts: Sequence[Layout], flops: Sequence[float]) -> Features:
    """Describe layouts.

    Args:
        layouts: any, of one space or several.
        flops: multiply-adds of each.
    """
    cost = log_costs(flops)
    sizes = varying(log_sizes(layouts))
    return Features(
        varying(numbered_kinds(layouts)),
        sizes[:, without_parallels(sizes)],
        (cost - cost.mean()) / max(cost.std(), 1e-9),
        np.zeros((len(layouts), 0)),
    )


def numbered_kinds(layouts: Sequence[Layout]) -> Array:
    """Kinds and options of layouts, a column for each, its values as numbers by appearance."""
    kinds = [
        [*(stage.kind for stage in layout.stages), *(getattr(layout, name) for name in OTHERS)]
        for layout in layouts
    ]
    return np.array([_numbered(column) for column in zip(*kinds, strict=True)]).T


def log_sizes(layouts: Sequence[Layout]) -> Array:
    """Base-2 logarithms: depths, stem width and widths of layouts, nine columns."""
    widths = [(layout.stem_width or layout.widths[0], *layout.widths) for layout in layouts]
    return np.array(
        [
            [*map(math.log2, (*layout.depths, *each))]
            for layout, each in zip(layouts, widths, strict=True)
        ]
    )


def log_costs(flops: Sequence[float]) -> Array:
    """Logarithms of multiply-adds."""
    costs: Array = np.log(np.maximum(np.asarray(flops, dtype=np.float64), 1.0))
    return costs


def varying(table: Array) -> Array:
    """Leave out columns in which all rows are alike."""
    return table[:, np.ptp(table, axis=0) > 0]


def without_parallels(table: Array) -> list[int]:
    """Find the columns that do not differ from an earlier one by a constant, as widths that double
    do.
    """
    centred = table - table.mean(axis=0)
    return [
        column
        for column in range(table.shape[1])
        if not any(np.allclose(centred[:, column], centred[:, other]) for other in range(column))
    ]


def _numbered(column: Sequence[object]) -> list[float]:
    numbers = {value: float(number) for number, value in enumerate(dict.fromkeys(column))}
    return [numbers[value] for value in column]
