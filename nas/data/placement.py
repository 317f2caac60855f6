"""Where an image lies in its frame: whole, enlarged or made smaller, or a part of it alone."""

from __future__ import annotations

from typing import NamedTuple

from nas.data.iou_crop import Crop

Pair = tuple[int, int]  # height and width, or row and column, in pixels


class Placement(NamedTuple):
    """How an image lies in its frame.

    Args:
        size: height and width of the whole image there, in pixels.
        offset: row and column of the frame at which it begins, negative where it begins outside.
        window: row, column, height and width of the part of the frame that shows the image; None:
            all of it.
    """

    size: Pair
    offset: Pair = (0, 0)
    window: tuple[int, int, int, int] | None = None


def fitted(frame: Pair, own: Pair) -> Placement:
    """Place a whole image of size `own` in the middle of a frame, as large as fits."""
    ratio = min(frame[0] / own[0], frame[1] / own[1])
    height, width = (max(1, int(side * ratio + 0.5)) for side in own)
    return Placement((height, width), ((frame[0] - height) // 2, (frame[1] - width) // 2))


def jittered(frame: Pair, size: Pair, scales: tuple[float, float], drawn: list[float]) -> Placement:
    """Place an image at another scale.

    Args:
        frame: height and width.
        size: of the image in it, at a scale of 1.
        scales: least and most that are drawn, evenly in logarithms.
        drawn: three numbers of 0 to 1, for the scale and for the place, evenly, from top to bottom
            and from left to right.
    """
    low, high = scales
    scale = low * (high / low) ** drawn[0]
    height, width = (max(1, round(side * scale)) for side in size)
    offsets = [
        round((limit - side) * place)
        for limit, side, place in zip(frame, (height, width), drawn[1:], strict=True)
    ]
    return Placement((height, width), (offsets[0], offsets[1]))


def cropped(frame: Pair, own: Pair, crop: Crop) -> Placement:
    """Place a part of an image of size `own` in the middle of a frame, as large as fits, with
    nothing of the image beside it.
    """
    ratio = min(frame[0] / crop.height, frame[1] / crop.width)
    rows, top, row, height = _axis(frame[0], own[0], crop.top, crop.height, ratio)
    columns, left, column, width = _axis(frame[1], own[1], crop.left, crop.width, ratio)
    return Placement((rows, columns), (top, left), (row, column, height, width))


def _axis(frame: int, own: int, start: int, length: int, ratio: float) -> tuple[int, int, int, int]:
    """The image's size and offset, the window's beginning and size, of one axis."""
    whole = max(1, round(own * ratio))
    begin, size = start * whole / own, length * whole / own
    seen = min(frame, max(1, round(size)))
    at = (frame - seen) // 2
    return whole, at - round(begin), at, seen
