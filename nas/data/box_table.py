"""The objects of a split as columns of numbers: a hundred bytes each, however many there are."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from nas.data.segmentation import Segmentation

CHUNK = 4096  # boxes that are Python's at a time


@dataclass(frozen=True, slots=True)
class Box:
    """One object of an image.

    Args:
        id: COCO's number of the annotation.
        image_id: COCO's number of the image.
        category_id: COCO's number of the category.
        bbox: x, y, width, height in pixels, inside the image.
        area: area of the object in square pixels.
        iscrowd: 1 for a box around many objects, which is not trained on; else 0.
        segmentation: mask in COCO's form (see `nas.data.segmentation`), None where there is none.
    """

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: int
    segmentation: Segmentation | None = None

    def to_coco(self) -> dict[str, Any]:
        """Write the annotation in COCO's form, plain JSON."""
        entry = {
            "id": self.id,
            "image_id": self.image_id,
            "category_id": self.category_id,
            "bbox": list(self.bbox),
            "area": self.area,
            "iscrowd": self.iscrowd,
        }
        return entry if self.segmentation is None else {**entry, "segmentation": self.segmentation}


@dataclass(frozen=True, eq=False)
class BoxTable(Sequence[Box]):
    """Boxes in columns; as a sequence it makes each `Box` when it is asked for.

    Args:
        ids, image_ids, category_ids: [N], int64.
        bboxes: [N, 4], float64: x, y, width, height in pixels.
        areas: [N], float64, square pixels.
        crowds: [N], bool.
        masks: for each box its segmentation as JSON, or None; empty where no box has one.
    """

    ids: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    bboxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowds: NDArray[np.bool_]
    masks: tuple[bytes | None, ...] = ()

    @classmethod
    def of(cls, boxes: Iterable[Box]) -> BoxTable:
        """Make a table of boxes, which are not kept."""
        rows, numbers, masks = array("q"), array("d"), list[bytes | None]()
        for box in boxes:
            rows.extend((box.id, box.image_id, box.category_id, box.iscrowd))
            numbers.extend((*box.bbox, box.area))
            masks.append(_encoded(box.segmentation))
        whole = np.array(rows, dtype=np.int64).reshape(-1, 4)
        floats = np.array(numbers, dtype=np.float64).reshape(-1, 5)
        columns = (*whole.T[:3], floats[:, :4], floats[:, 4], whole[:, 3] > 0)
        return cls.of_columns([np.ascontiguousarray(column) for column in columns], masks)

    @classmethod
    def of_columns(
        cls, columns: Sequence[NDArray[Any]], masks: Sequence[bytes | None] = ()
    ) -> BoxTable:
        """Make a table of what `columns` gives, and masks that all may be None."""
        ids, image_ids, category_ids, bboxes, areas, crowds = columns
        kept = tuple(masks) if any(mask is not None for mask in masks) else ()
        return cls(ids, image_ids, category_ids, bboxes, areas, crowds, kept)

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Box: ...
    @overload
    def __getitem__(self, index: slice) -> BoxTable: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Box | BoxTable:
        rows = np.arange(len(self))
        if isinstance(index, slice):
            return self.select(rows[index])
        return next(iter(self.select(rows[[int(index)]])))

    def __iter__(self) -> Iterator[Box]:
        for start in range(0, len(self), CHUNK):
            part = slice(start, start + CHUNK)
            masks = self.masks[part] or (None,) * CHUNK
            columns = (self.ids, self.image_ids, self.category_ids, self.bboxes, self.areas)
            lists = (column[part].tolist() for column in columns)
            crowds = self.crowds[part].astype(int).tolist()
            for number, image, kind, bbox, area, crowd, mask in zip(
                *lists, crowds, masks, strict=False
            ):
                segmentation = None if mask is None else json.loads(mask)
                yield Box(number, image, kind, tuple(bbox), area, crowd, segmentation)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BoxTable):
            return NotImplemented
        return self.masks == other.masks and all(
            np.array_equal(mine, theirs)
            for mine, theirs in zip(self.columns(), other.columns(), strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def columns(self) -> tuple[NDArray[Any], ...]:
        """All columns but the masks, in the order of the class's arguments."""
        return (
            self.ids,
            self.image_ids,
            self.category_ids,
            self.bboxes,
            self.areas,
            self.crowds,
        )

    def select(self, rows: NDArray[Any] | Sequence[int]) -> BoxTable:
        """Give a part of the table.

        Args:
            rows: a truth value for each box, or indices in the order that is wanted.
        """
        chosen = np.asarray(rows)
        indices = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
        masks = [self.masks[index] for index in indices] if self.masks else []
        return BoxTable.of_columns([column[indices] for column in self.columns()], masks)

    def joined(self, other: BoxTable) -> BoxTable:
        """The boxes of this table, and behind them those of another."""
        if not len(other):
            return self
        columns = zip(self.columns(), other.columns(), strict=True)
        masks = [each for table in (self, other) for each in table.masks or [None] * len(table)]
        return BoxTable.of_columns([np.concatenate(parts) for parts in columns], masks)

    @property
    def objects(self) -> BoxTable:
        """The boxes that are no crowds: those that are trained on."""
        return self.select(~self.crowds) if self.crowds.any() else self

    def of_images(self, ids: Iterable[int]) -> BoxTable:
        """The boxes of some images, by the images' ids."""
        return self.select(np.isin(self.image_ids, np.fromiter(ids, dtype=np.int64)))

    def without_masks(self) -> BoxTable:
        """The boxes alone."""
        return replace(self, masks=())

    def segmentation(self, index: int) -> Segmentation | None:
        """Mask of a box in COCO's form; None where it has none."""
        mask = self.masks[index] if self.masks else None
        return None if mask is None else json.loads(mask)

    @property
    def with_mask(self) -> int:
        """How many boxes have a mask."""
        return sum(mask is not None for mask in self.masks)

    def by_image(self, numbers: Mapping[int, int]) -> NDArray[np.int64]:
        """What a mapping has for the image of each box, for example its index: [N]."""
        found, inverse = np.unique(self.image_ids, return_inverse=True)
        values = np.array([numbers[image] for image in found.tolist()], dtype=np.int64)
        return values[inverse] if len(found) else np.zeros(0, dtype=np.int64)


def _encoded(segmentation: Segmentation | None) -> bytes | None:
    """Write a mask as a table keeps it."""
    return None if segmentation is None else json.dumps(segmentation).encode()
