"""The check of one annotation against its image: clipped, numbered, completed, or lost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nas.data.annotation_numbers import AnnotationNumbers
from nas.data.box_form import ROUNDING
from nas.data.box_table import Box, BoxTable
from nas.data.coco import ImageRecord
from nas.data.findings import Findings
from nas.data.ids import as_id
from nas.data.plain_boxes import LARGEST_AREA
from nas.data.segmentation import check_segmentation, extent

CROWD_WORDS = {
    **dict.fromkeys(("1", "true", "yes"), 1),
    **dict.fromkeys(("0", "false", "no", "", "none", "null"), 0),
}

Entry = Any  # a dictionary or an `AnnotationEntry`
Numbers = tuple[float, ...]


@dataclass(frozen=True)
class AnnotationCheck:
    """The check of annotations one by one, in the order of their file.

    Args:
        images: the images that can be used, by id.
        categories: the ids of the categories.
        source: the annotation file, for findings about annotations without an image.
        findings: takes what was repaired and what was lost.
        trust_area: a stated area that can be that of the object is used, else the box's.
        masks: keep the masks, which are checked in any case.
        numbers: gives each its number.
    """

    images: dict[int, ImageRecord]
    categories: set[int]
    source: str
    findings: Findings
    trust_area: bool
    masks: bool
    numbers: AnnotationNumbers

    def boxes(self, entries: Sequence[Entry], rows: Iterable[int]) -> tuple[BoxTable, list[int]]:
        """Check annotations of a list.

        Args:
            entries: the list.
            rows: which of them, in ascending order.

        Returns:
            The boxes that can be used, and the row of each.
        """
        used: list[int] = []

        def checked() -> Iterator[Box]:
            for row in rows:
                if box := self.box(entries[row]):
                    used.append(row)
                    yield box

        return BoxTable.of(checked()), used

    def box(self, entry: Entry) -> Box | None:
        """Give the box of an annotation; None where it is of no use."""
        image = self.images.get(as_id(entry.get("image_id")))
        file = image.file_name if image else self.source
        number = self.numbers.of(entry, file, self.findings)
        if number is None:
            return None
        mask = entry.get("segmentation")
        bbox = _bbox(entry, mask, image, number, self.findings)
        if fault := _fault(entry, bbox, image, self.categories):
            self.findings.lost(fault[0], file, number, fault[1])
        if fault or not image or not bbox:
            return None
        box = _clipped(entry, mask, bbox, number, image, self.findings, trust_area=self.trust_area)
        return box if self.masks else replace(box, segmentation=None)


def _bbox(
    entry: Entry, stated_mask: object, image: ImageRecord | None, number: int, findings: Findings
) -> Numbers | None:
    """x, y, width, height: of a mask where there is no box, the other way round where negative."""
    bbox = finite_numbers(entry.get("bbox"))
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


def finite_numbers(bbox: object) -> Numbers | None:
    """Four finite numbers, if that is what `bbox` is; text of numbers is taken for them."""
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
