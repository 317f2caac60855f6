"""COCO's `segmentation` of an object as files have it: polygons or a run-length code, checked
without decoding.

[[x, y, x, y, x, y, ...], ...]                    the area inside any of the polygons, in pixels
{"size": [height, width], "counts": [n, n, ...]}  lengths of runs of 0 and 1 by turns, by columns
{"size": [height, width], "counts": "..."}        the same runs as text (pycocotools)
"""

from __future__ import annotations

import itertools
from typing import Any

Segmentation = list[list[float]] | dict[str, Any]
MIN_NUMBERS = 6  # of a polygon: three points
MOST_BITS = 60  # of one run: no image has more pixels, and sums of longer numbers take long
# Largest coordinate over the longer side of the image: drawing a polygon walks along every edge.
REACH = 2


def check_segmentation(
    segmentation: object, height: int, width: int
) -> tuple[Segmentation | None, str | None]:
    """Check the segmentation of an object.

    Args:
        segmentation: the file's value; None and an empty list say that the object has no mask.
        height, width: size of its image in pixels.

    Returns:
        What can be used of it, None where that is nothing; and what is wrong with the rest, None
        where that is nothing.
    """
    if segmentation is None or segmentation == []:
        return None, None
    if isinstance(segmentation, dict):
        fault = _runs_fault(segmentation, height, width)
        return (None, fault) if fault else (segmentation, None)
    if not isinstance(segmentation, list):
        return (
            None,
            f"segmentation {_short(segmentation)} is neither polygons nor a run-length code",
        )
    sound = [_is_polygon(polygon, REACH * max(height, width)) for polygon in segmentation]
    if all(sound):
        return segmentation, None
    fault = (
        f"polygon {_short(segmentation[sound.index(False)])} is not three or more points x, y "
        "near the image"
    )
    return [
        polygon for polygon, good in zip(segmentation, sound, strict=True) if good
    ] or None, fault


def extent(segmentation: Segmentation) -> tuple[float, float, float, float] | None:
    """Find the box around a checked segmentation: x, y, width, height in pixels; None where it
    covers no pixel.
    """
    if isinstance(segmentation, dict):
        return _extent_of_runs(segmentation)
    xs = [x for polygon in segmentation for x in polygon[::2]]
    ys = [y for polygon in segmentation for y in polygon[1::2]]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def _extent_of_runs(code: dict[str, Any]) -> tuple[float, float, float, float] | None:
    """Runs go down the columns, one after the other; every second one is of the mask."""
    height, counts = code["size"][0], code["counts"]
    runs = (_text_runs(counts) or []) if isinstance(counts, str) else counts
    ends = list(itertools.accumulate(runs))
    covered = [(end - run, end - 1) for run, end in zip(runs[1::2], ends[1::2], strict=True) if run]
    if not covered:
        return None
    x, right = covered[0][0] // height, covered[-1][1] // height
    rows = [row for run in covered for row in _rows(*run, height)]
    return float(x), float(min(rows)), float(right + 1 - x), float(max(rows) + 1 - min(rows))


def _rows(first: int, last: int, height: int) -> tuple[int, int]:
    """First and last row of a run, which covers a column's end and the next one's beginning where
    it goes on there.
    """
    return (first % height, last % height) if first // height == last // height else (0, height - 1)


def _is_polygon(polygon: object, limit: float) -> bool:
    return (
        isinstance(polygon, list)
        and len(polygon) >= MIN_NUMBERS
        and len(polygon) % 2 == 0
        and all(type(value) is float or type(value) is int for value in polygon)
        and all(abs(value) <= limit for value in polygon)  # what is not a number is not
    )


def _runs_fault(code: dict[str, Any], height: int, width: int) -> str | None:
    size, counts = code.get("size"), code.get("counts")
    if size != [height, width]:
        return f"run-length code of size {_short(size)}, image {height} high and {width} wide"
    runs = _text_runs(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        return f"run-length code with counts {_short(counts)}"
    if sum(runs) != height * width:
        return f"run-length code of {sum(runs)} pixels, image of {height * width}"
    return None


def _text_runs(text: str) -> list[int] | None:
    """Runs from pycocotools' text, None where it is none (`rleFrString` in its maskApi.c).

    A character holds five bits of a number, the lowest first, and a sixth that says that more
    follow, plus 48; from the fourth number on it is the difference to the one before the last.
    """
    runs: list[int] = []
    value = shift = 0
    for code in (ord(character) - 48 for character in text):
        if not 0 <= code < 64 or shift > MOST_BITS:
            return None
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs if not shift else None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
