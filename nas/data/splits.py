"""What workers need of a checked data set: two index files, and the figures that memory and study
are told.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from nas.config.recipe import Recipe
from nas.config.sections import DataSpec
from nas.config.spec import SearchSpec
from nas.data.coco import CocoSplit, fingerprint
from nas.data.samplers import largest_batch_shape
from nas.data.validation import CheckedSplit, usable_splits
from nas.reports import DatasetSummary
from nas.utils.files import atomic_write
from nas.utils.paths import localize
from nas.utils.progress import CountProgress

BOXES_ONLY = "the data set has no instance masks: the detector learns boxes only"


class Splits(NamedTuple):
    """What is trained on, what chooses, and what nothing was chosen by."""

    train: CocoSplit
    val: CocoSplit
    test: CocoSplit | None = None

    def present(self) -> dict[str, CocoSplit]:
        """Those there are, by name."""
        return {name: split for name, split in self._asdict().items() if split}


class AdaptedRequest(NamedTuple):
    """A request that asks for what its data have, to go on with instead of the one before.

    Args:
        spec: the request; its detector learns no masks where the training split has none.
        splits: the checked data.
        facts: figures of the data.
    """

    spec: SearchSpec
    splits: Splits
    facts: DatasetSummary


def adapt_to_data(spec: SearchSpec, progress: CountProgress | None = None) -> AdaptedRequest:
    """Check the data of a request, and adapt the request to them (`BOXES_ONLY` says how).

    Args:
        spec: the request as it was written; it stays as it is.
        progress: told of every image that was looked into.

    Raises:
        DataError: the data set cannot be read, or has faults that cannot be repaired.
    """
    masks = spec.detector.learns_masks
    splits, facts = read_data(spec.data, spec.recipe, progress, masks=masks)
    if masks and not facts.masks:
        boxes_only = spec.detector.model_copy(update={"masks": False})
        spec = spec.model_copy(update={"detector": boxes_only})
    return AdaptedRequest(spec, splits, facts)


def read_data(
    spec: DataSpec, recipe: Recipe, progress: CountProgress | None = None, *, masks: bool = False
) -> tuple[Splits, DatasetSummary]:
    """Check the splits; the training one is cut to `train_fraction`. Masks are left behind, which
    can take ten times the memory of the boxes, unless `masks` asks for them and there are some to
    train on.

    Raises:
        DataError: the data set cannot be used (see `usable_splits`).
    """
    names = tuple(name for name in (spec.train, spec.val, spec.test) if name)
    checked = usable_splits(
        localize(spec.root), names, skip_broken=spec.skip_broken, progress=progress
    )
    found = [checked[0].split.subset(spec.train_fraction), *(each.split for each in checked[1:])]
    masks = masks and any(box.segmentation is not None for box in found[0].boxes if not box.iscrowd)
    train, val, *test = found if masks else [split.without_masks() for split in found]
    per_image = Counter(box.image_id for box in train.boxes if not box.iscrowd)
    facts = DatasetSummary(
        fingerprint=fingerprint([train, val, *test]),
        categories=tuple(name for _, name in train.categories),
        train_images=len(train.images),
        train_boxes=len(train.boxes),
        val_images=len(val.images),
        val_boxes=len(val.boxes),
        max_boxes_per_image=max(per_image.values(), default=0),
        batch_shape=largest_batch_shape(train.images, recipe),
        repaired=_count(checked, repaired=True),
        left_out=_count(checked, repaired=False),
        masks=masks,
    )
    return Splits(train, val, *test), facts


def _count(checked: list[CheckedSplit], *, repaired: bool) -> dict[str, int]:
    kinds = Counter(
        problem.kind
        for split in checked
        for problem in split.problems
        if problem.repaired is repaired
    )
    return dict(kinds)


def write_index(path: Path, split: CocoSplit) -> None:
    """Store a checked split; readers never see half a file."""
    content = json.dumps({"folder": str(split.folder.resolve()), "coco": split.to_coco()})
    atomic_write(path, lambda file: file.write(content.encode()))


def read_index(path: Path) -> CocoSplit:
    """The inverse of `write_index`."""
    content = json.loads(path.read_text())
    return CocoSplit.from_coco(Path(content["folder"]), content["coco"])
