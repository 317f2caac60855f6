"""Whether the boxes of a file are x, y, width, height in pixels, as COCO's are, or in another form
that would be trained on in silence.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEAST_SIDE = 8  # pixels; in smaller images boxes of less than a pixel mean nothing
ROUNDING = 0.5  # pixels; a box that is less outside was rounded by whoever wrote the file
FEW = 3  # boxes of which nothing follows
BEYOND_SHARE = 0.1  # of the boxes; so many are not outside by chance
SAME_AREA = 0.02  # relative

Array = NDArray[np.float64]


class StatedBoxes(NamedTuple):
    """Boxes as their file states them.

    Args:
        bboxes: [N, 4], finite numbers.
        sizes: [N, 2], width and height of each box's image in pixels.
        areas: [N], stated; not a number where there is none.
    """

    bboxes: Array
    sizes: Array
    areas: Array


def suspected_form(boxes: StatedBoxes) -> str | None:
    """Say what boxes look like if they are not x, y, width, height in pixels; None if they are.

    Normalised boxes have no number above 1. Corners x1, y1, x2, y2 all lie within their images with
    the second beyond the first, while as width and height a tenth of them reach outside; stated
    areas, where they are those of one of the two, decide.
    """
    numbers, sizes, areas = boxes
    count = len(numbers)
    if not count:
        return None
    if sizes.min() >= LEAST_SIDE and np.abs(numbers).max() <= 1:
        return f"normalised: none of the {count} has a number above 1"
    if count >= FEW and _corners(numbers, sizes, areas):
        outside = int(_beyond(numbers[:, :2] + numbers[:, 2:], sizes).sum())
        return (
            f"corners x1, y1, x2, y2: as width and height {outside} of {count} reach outside "
            "their image, as corners none"
        )
    return None


def _corners(numbers: Array, sizes: Array, areas: Array) -> bool:
    spans = numbers[:, 2:] - numbers[:, :2]
    if (spans <= 0).any() or _beyond(numbers[:, 2:], sizes).any():
        return False
    as_sides, as_corners = (
        np.abs(areas - of_box) < SAME_AREA * of_box
        for of_box in (numbers[:, 2:].prod(axis=1), spans.prod(axis=1))
    )
    if as_sides.mean() > 0.5:
        return False
    outside = _beyond(numbers[:, :2] + numbers[:, 2:], sizes).mean()
    return bool(outside >= BEYOND_SHARE or (as_corners.mean() > 0.5 and outside > 0))


def _beyond(corners: Array, sizes: Array) -> NDArray[np.bool_]:
    return np.asarray((corners > sizes + ROUNDING).any(axis=1))
