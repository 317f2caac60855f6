"""What earlier studies of other data, recipes or budgets say of the layouts of a space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas.errors import StudyError
from nas.search.multifidelity.features import (
    Features,
    log_costs,
    log_sizes,
    numbered_kinds,
    without_parallels,
)
from nas.search.multifidelity.gaussian_process import posterior
from search_spaces.layout import Layout

Array = NDArray[np.float64]
SPAN = 2.0  # of a size, from the least of a space to the greatest; as of depths that quadruple


class Trainings(NamedTuple):
    """Layouts with what it costs to train them.

    Args:
        layouts: of one space.
        flops: multiply-adds of each.
    """

    layouts: Sequence[Layout]
    flops: Sequence[float]


class EarlierStudy(NamedTuple):
    """What an earlier study has shown.

    Args:
        name: of the study.
        trained: its layouts, M.
        scores: [M], of mean 0 and deviation 1 within the study.
        left: [M], the share of each training that was still to come when it was stopped.
    """

    name: str
    trained: Trainings
    scores: Array
    left: Array


class Prior:
    """Means over layouts, each taught by an earlier study. A layout is likened to those of the
    study by what transfers between spaces: kinds and options, and depths, widths and multiply-adds
    in relation to the others of its space.

    Args:
        earlier: the studies.
        sample: layouts of the space that is searched, and their costs.

    Raises:
        StudyError: nothing varies both in a study and in the sample.
    """

    def __init__(self, earlier: Sequence[EarlierStudy], sample: Trainings) -> None:
        self._transfers = [_Transfer(study, sample) for study in earlier]
        self._known: dict[Layout, Array] = {}

    @property
    def text(self) -> str:
        """Say what is learnt from, for people."""
        studies = (f"{each.name!r} ({each.count} trainings)" for each in self._transfers)
        return f"prior: layouts are expected to do as in {', '.join(studies)}, until results differ"

    def means(self, layouts: Sequence[Layout], flops: Sequence[float]) -> Array:
        """Predict scores, higher is better.

        Args:
            layouts: any, N.
            flops: multiply-adds of each.

        Returns:
            [N, number of studies], in deviations of the study's scores.
        """
        costs = dict(zip(layouts, flops, strict=True))
        if new := [layout for layout in costs if layout not in self._known]:
            asked = Trainings(new, [costs[layout] for layout in new])
            columns = [transfer.mean(asked) for transfer in self._transfers]
            self._known.update(zip(new, np.column_stack(columns), strict=True))
        return np.array([self._known[layout] for layout in layouts])


class _Scale(NamedTuple):
    """What sizes and costs of a space are measured by: the least of each size and its extent, the
    mean of the logarithms of multiply-adds and their deviation.
    """

    least: Array
    extent: Array
    mean: float
    deviation: float

    @classmethod
    def of(cls, space: Trainings) -> _Scale:
        sizes, costs = log_sizes(space.layouts), log_costs(space.flops)
        extent = np.ptp(sizes, axis=0)
        deviation = float(costs.std()) if np.ptp(costs) > 0 else 0.0
        return cls(sizes.min(axis=0), extent, float(costs.mean()), deviation)

    def sizes(self, layouts: Sequence[Layout]) -> Array:
        relative: Array = (log_sizes(layouts) - self.least) / np.maximum(self.extent, 1e-9)
        return SPAN * relative

    def costs(self, flops: Sequence[float]) -> Array:
        relative: Array = (log_costs(flops) - self.mean) / max(self.deviation, 1e-9)
        return relative


class _Transfer:
    """A Gaussian process on an earlier study, asked about layouts of the space of another one."""

    def __init__(self, study: EarlierStudy, sample: Trainings) -> None:
        self.study, self.ours = study, _Scale.of(sample)
        self.theirs = _Scale.of(study.trained)
        self.name, self.count = study.name, len(study.trained.layouts)
        count = self.count
        kinds = numbered_kinds([*study.trained.layouts, *sample.layouts])
        self.kinds = (np.ptp(kinds[:count], axis=0) > 0) & (np.ptp(kinds[count:], axis=0) > 0)
        self.sizes = (self.theirs.extent > 0) & (self.ours.extent > 0)
        self.costs = min(self.theirs.deviation, self.ours.deviation) > 0
        if not (self.kinds.any() or self.sizes.any() or self.costs):
            raise StudyError(
                f"search.prior: {study.name!r} and this space must have a feature in common, one "
                "of kinds, options, depths, widths and FLOPs that varies in both; got none"
            )
        relative = self._relative(sample)[:, self.sizes]
        self.columns = np.flatnonzero(self.sizes)[without_parallels(relative)]

    def _relative(self, asked: Trainings) -> Array:
        """Sizes of the study's layouts and of others, each in relation to their space."""
        mine = self.theirs.sizes(self.study.trained.layouts)
        return np.concatenate([mine, self.ours.sizes(asked.layouts)])

    def mean(self, asked: Trainings) -> Array:
        """Predict the score of each layout in the study, if it were one of its space."""
        mine = self.study.trained
        layouts, count = [*mine.layouts, *asked.layouts], len(mine.layouts)
        costs = np.concatenate([self.theirs.costs(mine.flops), self.ours.costs(asked.flops)])
        features = Features(
            numbered_kinds(layouts)[:, self.kinds],
            self._relative(asked)[:, self.columns],
            costs if self.costs else np.zeros(len(layouts)),
            np.zeros((len(layouts), 0)),
        )
        found = posterior(features, np.arange(count), self.study.scores, self.study.left)
        return found.mean[count:]
