"""The check of annotations as columns: those without any fault, of which a million take seconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from nas.data.annotation_list import AnnotationList
from nas.data.box_form import ROUNDING
from nas.data.box_table import BoxTable
from nas.data.coco import ImageRecord
from nas.data.ids import NO_ID
from nas.data.segmentation import MIN_NUMBERS, REACH

LARGEST_AREA = 1.01  # of the box; beyond it the area is of something else
NO_MASK = (b"", b"null", b"[]")

Flags = NDArray[np.bool_]
Numbers = NDArray[np.float64]

_POLYGONS = msgspec.json.Decoder(list[list[float]])


def sizes_of(
    images: Mapping[int, ImageRecord], image_ids: NDArray[np.int64]
) -> tuple[Flags, Numbers]:
    """Look up the sizes of images.

    Args:
        images: by id.
        image_ids: [N].

    Returns:
        [N], whether there is such an image; [N, 2], its width and height in pixels, 1 without one.
    """
    rows = sorted((image.id, image.width, image.height) for image in images.values())
    table = np.array([*rows, (NO_ID, 1, 1)], dtype=np.int64)
    places = np.searchsorted(table[:-1, 0], image_ids)
    known = table[places, 0] == image_ids
    return known, np.where(known[:, None], table[places, 1:], 1).astype(np.float64)


def plain_boxes(
    entries: AnnotationList,
    images: Mapping[int, ImageRecord],
    categories: Iterable[int],
    *,
    trust_area: bool,
    masks: bool,
) -> tuple[BoxTable, Flags]:
    """Check annotations that are written as COCO writes them.

    Args:
        entries: the annotations.
        images: the images that can be used, by id.
        categories: the ids of the categories.
        trust_area: a stated area that can be that of the object is used, else the box's.
        masks: keep the masks, which are checked in any case.

    Returns:
        The boxes of those that have no fault, beyond the rounding of their corners; and [N], which
        those are.
    """
    plain, stated = entries.stated
    known, sizes = sizes_of(images, stated.image_ids)
    bboxes, beyond = _clipped(stated.bboxes, sizes)
    sound = plain & known & np.isin(stated.category_ids, [*categories])
    sound &= (stated.bboxes[:, 2:] > 0).all(1) & (bboxes[:, 2:] > 0).all(1)
    sound &= (beyond <= ROUNDING) & _single(stated.ids)
    with_mask, codes = _check_masks(entries, sound, REACH * sizes.max(1), masks)
    areas = _areas(stated.areas, bboxes, trust_area & ((beyond <= 0) | with_mask))
    boxes = replace(stated, bboxes=bboxes, areas=areas).select(sound)
    return BoxTable.of_columns(boxes.columns(), codes), sound


def _clipped(stated: Numbers, sizes: Numbers) -> tuple[Numbers, Numbers]:
    """Boxes inside their images, and how many pixels they reached beyond: [N, 4], [N]."""
    near, far = stated[:, :2], stated[:, :2] + stated[:, 2:]
    inner, outer = np.where(near < 0, 0.0, near), np.where(sizes < far, sizes, far)
    beyond = np.maximum(inner - near, far - outer).max(axis=1, initial=0.0)
    clipped = np.concatenate([inner, outer - inner], axis=1)
    return np.where(beyond[:, None] > 0, clipped, stated), beyond


def _single(ids: NDArray[np.int64]) -> Flags:
    """Which ids no other annotation has."""
    _, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    single: Flags = counts[inverse] == 1
    return single


def _areas(stated: Numbers, bboxes: Numbers, trusted: Flags) -> Numbers:
    of_box = bboxes[:, 2] * bboxes[:, 3]
    usable = trusted & (stated > 0) & (stated <= LARGEST_AREA * of_box)
    return np.where(usable, stated, of_box)


def _check_masks(
    entries: AnnotationList, sound: Flags, limits: Numbers, keep: bool
) -> tuple[Flags, list[bytes | None]]:
    """Take those that have anything but sound polygons out of `sound`.

    Returns:
        [N], which have a mask; and the masks of those that are left, where they are kept.
    """
    with_mask, codes = np.zeros(len(sound), dtype=bool), list[bytes | None]()
    for row in np.flatnonzero(sound).tolist():
        code = entries.mask(row)
        if code in NO_MASK:
            codes.append(None)
        elif _are_polygons(code, limits[row]):
            with_mask[row] = True
            codes.append(code if keep else None)
        else:
            sound[row] = False
    return with_mask, codes


def _are_polygons(code: bytes, limit: float) -> bool:
    """Whether it is one or several polygons that `check_segmentation` has nothing against."""
    try:
        polygons = _POLYGONS.decode(code)
    except msgspec.MsgspecError:
        return False
    return bool(polygons) and all(
        len(numbers) >= MIN_NUMBERS
        and len(numbers) % 2 == 0
        and -limit <= min(numbers)
        and max(numbers) <= limit
        for numbers in polygons
    )
