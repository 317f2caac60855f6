"""The splits of a search, checked, with the figures for memory and study."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np

from nas.config.recipe import Recipe
from nas.config.sections import DataSpec
from nas.data.batch_shapes import largest_batch_shape
from nas.data.coco import CocoSplit
from nas.data.fingerprint import fingerprint
from nas.data.split_source import Places
from nas.data.validation import CheckedSplit, usable_splits
from nas.reports import DatasetSummary
from nas.utils.paths import localize
from nas.utils.progress import CountProgress


class Splits(NamedTuple):
    """The splits of a data set.

    Args:
        train: trained on.
        val: scored after each epoch; decides which candidate is best.
        test: scored once, at the end; decides nothing.
    """

    train: CocoSplit
    val: CocoSplit
    test: CocoSplit | None = None

    def present(self) -> dict[str, CocoSplit]:
        """List the splits that there are, by name."""
        return {name: split for name, split in self._asdict().items() if split}


def read_data(
    spec: DataSpec, recipe: Recipe, progress: CountProgress | None = None, *, masks: bool = False
) -> tuple[Splits, DatasetSummary]:
    """Check the splits of a data set and cut the training one to `train_fraction`.

    Args:
        spec: the data set.
        recipe: decides the largest batch shape.
        progress: told of every image that was looked into.
        masks: keep the masks where the training split has some; else they are dropped, because they
            can take ten times the memory of the boxes.

    Returns:
        The splits, and the figures of the data set.

    Raises:
        DataError: the data set cannot be read, or has faults that cannot be repaired.
    """
    names = tuple(name for name in (spec.train, spec.val, spec.test) if name)
    checked = usable_splits(
        localize(spec.root),
        names,
        skip_broken=spec.skip_broken,
        progress=progress,
        places=Places(spec.annotations, spec.images),
        masks=masks,
    )
    splits = [checked[0].split.subset(spec.train_fraction), *(each.split for each in checked[1:])]
    objects = splits[0].boxes.objects
    masks = masks and objects.with_mask > 0
    train, val, *test = splits if masks else [split.without_masks() for split in splits]
    _, per_image = np.unique(objects.image_ids, return_counts=True)
    facts = DatasetSummary(
        fingerprint=fingerprint([train, val, *test]),
        categories=tuple(name for _, name in train.categories),
        train_images=len(train.images),
        train_boxes=len(train.boxes),
        val_images=len(val.images),
        val_boxes=len(val.boxes),
        max_boxes_per_image=int(per_image.max(initial=0)),
        batch_shape=largest_batch_shape(train.images, recipe),
        repaired=_count(checked, "repaired"),
        left_out=_count(checked, "left out"),
        masks=masks,
        warned=_count(checked, "kept"),
        read={each.name: str(each.source) for each in checked},
    )
    return Splits(train, val, *test), facts


def _count(checked: list[CheckedSplit], done: str) -> dict[str, int]:
    issues = (issue for each in checked for issue in each.problems)
    return dict(Counter(issue.kind for issue in issues if issue.done == done))
