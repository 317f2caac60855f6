"""The check of every annotation against its image: clipped, numbered, completed, or lost."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from nas.data.annotation_files import NO_ID, as_id
from nas.data.coco import Box, ImageRecord
from nas.data.findings import Findings
from nas.data.segmentation import check_segmentation

ROUNDING = 0.5  # pixels; a box that is less outside was rounded by whoever wrote the file


def read_boxes(
    entries: list[dict[str, Any]],
    images: dict[int, ImageRecord],
    categories: Iterable[int],
    source: str,
    findings: Findings,
) -> list[Box]:
    """Check every annotation against its image; clip, number and complete boxes where needed.

    Args:
        entries: the file's list `annotations`.
        images: the images that can be used, by id.
        categories: the ids of the categories.
        source: the annotation file, for findings about annotations without an image.
        findings: takes what was repaired and what was lost.

    Returns:
        The boxes that can be used, in the order of `entries`, each with an id of its own.
    """
    category_ids, boxes = set(categories), []
    seen: dict[int, dict[str, Any]] = {}
    next_id = max((0, *(as_id(entry.get("id")) for entry in entries))) + 1
    for entry in entries:
        image = images.get(as_id(entry.get("image_id")))
        file, annotation_id = image.file_name if image else source, as_id(entry.get("id"))
        if seen.get(annotation_id) == entry:
            findings.repaired("annotation listed twice", file, annotation_id)
            continue
        if annotation_id == NO_ID or annotation_id in seen:
            kind = (
                "annotation without a number"
                if annotation_id == NO_ID
                else "duplicate annotation id"
            )
            findings.repaired(
                kind,
                file,
                None if annotation_id == NO_ID else annotation_id,
                f"renumbered to {next_id}",
            )
            annotation_id, next_id = next_id, next_id + 1
        seen[annotation_id] = entry
        if fault := _fault(entry, image, category_ids):
            kind, detail = fault
            findings.lost(kind, file, annotation_id, detail)
        elif image:
            boxes.append(_clipped(entry, annotation_id, image, findings))
    return boxes


def _fault(
    entry: dict[str, Any], image: ImageRecord | None, categories: set[int]
) -> tuple[str, str] | None:
    """What makes an annotation useless: kind and detail."""
    if image is None:
        return "unknown image", f"image_id {entry.get('image_id')!r}"
    if as_id(entry.get("category_id")) not in categories:
        return "unknown category", f"category_id {entry.get('category_id')!r}"
    if (bbox := _numbers(entry.get("bbox"))) is None:
        return "malformed box", f"bbox {entry.get('bbox')!r}"
    x, y, w, h = bbox
    if w <= 0 or h <= 0:
        return "box of zero area", f"bbox {entry['bbox']}"
    if min(x + w, image.width) - max(x, 0) <= 0 or min(y + h, image.height) - max(y, 0) <= 0:
        return "box outside the image", f"bbox {entry['bbox']}, image {image.width}x{image.height}"
    return None


def _numbers(bbox: object) -> tuple[float, ...] | None:
    """Four finite numbers, if that is what it is."""
    if (
        not isinstance(bbox, list)
        or len(bbox) != 4
        or not all(type(value) in (int, float) for value in bbox)
    ):
        return None
    try:
        numbers = tuple(map(float, bbox))
    except OverflowError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _clipped(
    entry: dict[str, Any], annotation_id: int, image: ImageRecord, findings: Findings
) -> Box:
    x, y, w, h = map(float, entry["bbox"])
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + w, float(image.width)), min(y + h, float(image.height))
    beyond = max(left - x, top - y, x + w - right, y + h - bottom)
    bbox = (left, top, right - left, bottom - top) if beyond > 0 else (x, y, w, h)
    if beyond > ROUNDING:
        findings.repaired(
            "box partly outside the image",
            image.file_name,
            annotation_id,
            f"bbox {entry['bbox']}, clipped",
        )
    area = entry.get("area")
    of_shape = beyond <= 0 or entry.get(
        "segmentation"
    )  # else it was the area of the box before clipping
    if not (of_shape and isinstance(area, int | float) and 0 < area < math.inf):
        area = bbox[2] * bbox[3]
    mask, fault = check_segmentation(entry.get("segmentation"), image.height, image.width)
    if fault:
        findings.repaired("malformed mask", image.file_name, annotation_id, f"{fault}; left out")
    return Box(
        annotation_id,
        image.id,
        entry["category_id"],
        bbox,
        float(area),
        int(bool(entry.get("iscrowd"))),
        mask,
    )
