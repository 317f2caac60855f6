"""The check of every annotation against its image: clipped, numbered, completed, or lost."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence

import numpy as np

from nas.data.annotation_check import AnnotationCheck, Entry, finite_numbers
from nas.data.annotation_list import AnnotationList, StatedNumbers, stated_numbers
from nas.data.annotation_numbers import AnnotationNumbers
from nas.data.box_form import StatedBoxes, suspected_form
from nas.data.box_table import BoxTable
from nas.data.coco import ImageRecord
from nas.data.findings import Findings
from nas.data.ids import as_id
from nas.data.plain_boxes import plain_boxes, sizes_of


@np.errstate(over="ignore", invalid="ignore")  # of numbers that no box of an image has
def read_boxes(
    entries: Sequence[Entry],
    images: dict[int, ImageRecord],
    categories: Iterable[int],
    source: str,
    findings: Findings,
    *,
    masks: bool = True,
) -> BoxTable:
    """Check every annotation against its image; clip, number and complete boxes where needed.

    Args:
        entries: the file's list `annotations`; an `AnnotationList` takes a tenth of the time.
        images: the images that can be used, by id.
        categories: the ids of the categories.
        source: the annotation file, for findings about annotations without an image.
        findings: takes what was repaired and what was lost.
        masks: keep the masks, which are checked in any case.

    Returns:
        The boxes that can be used, in the order of `entries`, each with an id of its own; none at
        all where their numbers are not x, y, width and height in pixels.
    """
    numbers, kinds = stated_numbers(entries), set(categories)
    form, constant = _habits(_stated(entries, numbers, images))
    if form:
        detail = f"they look {form}; COCO's are x, y, width, height in pixels"
        findings.lost("boxes in another form", source, detail=detail)
        return BoxTable.of([])
    trust = constant is None
    plain, sound = BoxTable.of([]), np.zeros(len(entries), dtype=bool)
    if isinstance(entries, AnnotationList):
        plain, sound = plain_boxes(entries, images, kinds, trust_area=trust, masks=masks)
    own = AnnotationNumbers(int(numbers.boxes.ids.max(initial=0)))
    check = AnnotationCheck(images, kinds, source, findings, trust, masks, own)
    others, rows = check.boxes(entries, np.flatnonzero(~sound).tolist())
    order = np.argsort(np.concatenate([np.flatnonzero(sound), np.array(rows, dtype=np.int64)]))
    boxes = _without_copies(plain.joined(others).select(order), images, findings)
    if constant is not None and len(boxes):
        detail = f"{len(boxes)} of {constant:g}; width times height is used"
        findings.repaired("one area for all boxes", source, detail=detail)
    return boxes


def _without_copies(
    boxes: BoxTable, images: dict[int, ImageRecord], findings: Findings
) -> BoxTable:
    """The boxes that are not drawn a second time: same image, category, corners, and crowd."""
    parts = (boxes.image_ids, boxes.category_ids, boxes.crowds, *boxes.bboxes.T)
    order = np.lexsort(parts)  # stable: of equal boxes the first comes first
    alike = [np.diff(part[order]) == 0 for part in parts]
    copies = np.sort(order[1:][np.logical_and.reduce(alike)])
    if not len(copies):
        return boxes
    for box in boxes.select(copies):
        findings.repaired("box listed twice", images[box.image_id].file_name, box.id, "left out")
    return boxes.select(np.delete(np.arange(len(boxes)), copies))


def _stated(
    entries: Sequence[Entry], stated: StatedNumbers, images: dict[int, ImageRecord]
) -> StatedBoxes:
    known, of_image = sizes_of(images, stated.boxes.image_ids)
    plain = stated.plain & known
    numbers, sizes, areas = array("d"), array("d"), array("d")
    for row in np.flatnonzero(~stated.plain).tolist():
        entry = entries[row]
        image, bbox = images.get(as_id(entry.get("image_id"))), finite_numbers(entry.get("bbox"))
        if image and bbox:
            numbers.extend(bbox)
            sizes.extend((image.width, image.height))
            areas.append(_number(entry.get("area")))
    return StatedBoxes(
        np.concatenate([stated.boxes.bboxes[plain], np.array(numbers).reshape(-1, 4)]),
        np.concatenate([of_image[plain], np.array(sizes).reshape(-1, 2)]),
        np.concatenate([stated.boxes.areas[plain], np.array(areas)]),
    )


def _number(area: object) -> float:
    """Not a number where it is none, or none that can be reckoned with."""
    try:
        return float(area) if isinstance(area, int | float) else math.nan
    except OverflowError:
        return math.nan


def _habits(stated: StatedBoxes) -> tuple[str | None, float | None]:
    """The form that boxes look to have if not COCO's; and the area that all state though they
    differ in size.
    """
    areas = np.unique(stated.areas[~np.isnan(stated.areas)])
    constant = len(areas) == 1 and len(np.unique(stated.bboxes[:, 2:].prod(axis=1).round(3))) > 1
    return suspected_form(stated), float(areas[0]) if constant else None
