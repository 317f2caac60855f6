"""The check of every annotation against its image: clipped, numbered, completed, or lost."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from nas.data.annotation_numbers import AnnotationNumbers
from nas.data.box_form import ROUNDING, StatedBoxes, suspected_form
from nas.data.box_table import Box, BoxTable
from nas.data.coco import ImageRecord
from nas.data.findings import Findings
from nas.data.ids import as_id
from nas.data.segmentation import check_segmentation, extent

CROWD_WORDS = {
    **dict.fromkeys(("1", "true", "yes"), 1),
    **dict.fromkeys(("0", "false", "no", "", "none", "null"), 0),
}
LARGEST_AREA = 1.01  # of the box; beyond it the area is of something else

Entry = dict[str, Any]
Numbers = tuple[float, ...]


def read_boxes(
    entries: list[Entry],
    images: dict[int, ImageRecord],
    categories: Iterable[int],
    source: str,
    findings: Findings,
) -> BoxTable:
    """Check every annotation against its image; clip, number and complete boxes where needed.

    Args:
        entries: the file's list `annotations`.
        images: the images that can be used, by id.
        categories: the ids of the categories.
        source: the annotation file, for findings about annotations without an image.
        findings: takes what was repaired and what was lost.

    Returns:
        The boxes that can be used, in the order of `entries`, each with an id of its own; none at
        all where their numbers are not x, y, width and height in pixels.
    """
    stated = _stated(entries, images)
    if form := suspected_form(stated):
        detail = f"they look {form}; COCO's are x, y, width, height in pixels"
        findings.lost("boxes in another form", source, detail=detail)
        return BoxTable.of([])
    constant = _constant(stated)
    checked = _checked(entries, images, set(categories), source, findings, not constant)
    boxes = _without_copies(BoxTable.of(checked), images, findings)
    if constant and len(boxes):
        area = stated.areas[~np.isnan(stated.areas)][0]
        detail = f"{len(boxes)} of {area:g}; width times height is used"
        findings.repaired("one area for all boxes", source, detail=detail)
    return boxes


def _checked(
    entries: list[Entry],
    images: dict[int, ImageRecord],
    categories: set[int],
    source: str,
    findings: Findings,
    trust_area: bool,
) -> Iterator[Box]:
    numbers = AnnotationNumbers(entries)
    for entry in entries:
        image = images.get(as_id(entry.get("image_id")))
        file = image.file_name if image else source
        number = numbers.of(entry, file, findings)
        if number is None:
            continue
        mask = entry.get("segmentation")
        bbox = _bbox(entry, mask, image, number, findings)
        if fault := _fault(entry, bbox, image, categories):
            findings.lost(fault[0], file, number, fault[1])
        elif image and bbox:
            yield _clipped(entry, mask, bbox, number, image, findings, trust_area=trust_area)


def _without_copies(
    boxes: BoxTable, images: dict[int, ImageRecord], findings: Findings
) -> BoxTable:
    """The boxes that are not drawn a second time: same image, category, corners, and crowd."""
    parts = (boxes.image_ids, boxes.category_ids, boxes.crowds, *boxes.bboxes.T)
    drawn = np.column_stack([column.astype(np.float64) for column in parts])
    _, first = np.unique(drawn, axis=0, return_index=True)
    if len(first) == len(boxes):
        return boxes
    copies = np.setdiff1d(np.arange(len(boxes)), first)
    for box in boxes.select(copies):
        findings.repaired("box listed twice", images[box.image_id].file_name, box.id, "left out")
    return boxes.select(np.sort(first))


def _stated(entries: list[Entry], images: dict[int, ImageRecord]) -> StatedBoxes:
    numbers, sizes, areas = array("d"), array("d"), array("d")
    for entry in entries:
        image, bbox = images.get(as_id(entry.get("image_id"))), _numbers(entry.get("bbox"))
        if image and bbox:
            numbers.extend(bbox)
            sizes.extend((image.width, image.height))
            areas.append(_number(entry.get("area")))
    return StatedBoxes(
        np.array(numbers).reshape(-1, 4), np.array(sizes).reshape(-1, 2), np.array(areas)
    )


def _number(area: object) -> float:
    """Not a number where it is none, or none that can be reckoned with."""
    try:
        return float(area) if isinstance(area, int | float) else math.nan
    except OverflowError:
        return math.nan


def _constant(stated: StatedBoxes) -> bool:
    """Whether all areas are the same though the boxes are not."""
    areas = np.unique(stated.areas[~np.isnan(stated.areas)])
    return len(areas) == 1 and len(np.unique(stated.bboxes[:, 2:].prod(axis=1).round(3))) > 1


def _bbox(
    entry: Entry, stated_mask: object, image: ImageRecord | None, number: int, findings: Findings
) -> Numbers | None:
    """x, y, width, height: of a mask where there is no box, the other way round where negative."""
    bbox = _numbers(entry.get("bbox"))
    if image is None:
        return bbox
    if entry.get("bbox") in (None, []) and stated_mask:
        mask, _ = check_segmentation(stated_mask, image.height, image.width)
        bbox = extent(mask) if mask else None
        if bbox:
            findings.repaired("mask without a box", image.file_name, number, "box of the mask")
    if bbox and min(bbox[2:]) < 0 < abs(bbox[2] * bbox[3]):
        x, y, w, h = bbox
        bbox = (min(x, x + w), min(y, y + h), abs(w), abs(h))
        findings.repaired("box of negative size", image.file_name, number, "drawn backwards")
    return bbox


def _fault(
    entry: Entry, bbox: Numbers | None, image: ImageRecord | None, categories: set[int]
) -> tuple[str, str] | None:
    """What makes an annotation useless: kind and detail."""
    if image is None:
        return "unknown image", f"image_id {entry.get('image_id')!r}"
    if as_id(entry.get("category_id")) not in categories:
        return "unknown category", f"category_id {entry.get('category_id')!r}"
    if bbox is None:
        return "malformed box", f"bbox {entry.get('bbox')!r}"
    x, y, w, h = bbox
    if w <= 0 or h <= 0:
        return "box of zero area", f"bbox {[*bbox]}"
    if min(x + w, image.width) - max(x, 0) <= 0 or min(y + h, image.height) - max(y, 0) <= 0:
        return "box outside the image", f"bbox {[*bbox]}, image {image.width}x{image.height}"
    return None


def _numbers(bbox: object) -> Numbers | None:
    """Four finite numbers, if that is what it is; text of numbers is taken for them."""
    if not isinstance(bbox, list) or len(bbox) != 4:
        return None
    if not all(type(value) in (int, float, str) for value in bbox):
        return None
    try:
        numbers = tuple(map(float, bbox))
    except (OverflowError, ValueError):
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _clipped(
    entry: Entry,
    stated_mask: object,
    stated: Numbers,
    number: int,
    image: ImageRecord,
    findings: Findings,
    *,
    trust_area: bool,
) -> Box:
    x, y, w, h = stated
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + w, float(image.width)), min(y + h, float(image.height))
    beyond = max(left - x, top - y, x + w - right, y + h - bottom)
    bbox = (left, top, right - left, bottom - top) if beyond > 0 else (x, y, w, h)
    if beyond > ROUNDING:
        findings.repaired(
            "box partly outside the image",
            image.file_name,
            number,
            f"bbox {[*stated]}, clipped",
        )
    mask, fault = check_segmentation(stated_mask, image.height, image.width)
    if fault:
        findings.repaired("malformed mask", image.file_name, number, f"{fault}; left out")
    # The area of a box was that before it was clipped.
    trusted = trust_area and (beyond <= 0 or bool(stated_mask))
    area = _area(entry.get("area"), bbox[2] * bbox[3], trusted)
    crowd = _crowd(entry.get("iscrowd"), image.file_name, number, findings)
    return Box(number, image.id, as_id(entry.get("category_id")), bbox, area, crowd, mask)


def _area(stated: object, of_box: float, trusted: bool) -> float:
    sound = isinstance(stated, int | float) and 0 < stated <= LARGEST_AREA * of_box
    return float(stated) if trusted and sound else of_box  # type: ignore[arg-type]


def _crowd(flag: object, file: str, number: int, findings: Findings) -> int:
    if not isinstance(flag, str):
        return int(bool(flag))
    word = CROWD_WORDS.get(flag.strip().lower())
    findings.repaired("crowd flag as text", file, number, f"iscrowd {flag!r} is {word or 0}")
    return word or 0
