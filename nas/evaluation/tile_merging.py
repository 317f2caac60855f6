"""Detections of overlapping tiles, merged into those of the whole image."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou

from nas.data.tiling import Window

CONTAINED = 0.7  # share of a smaller box in a larger one, from which both are one object
EDGE = 1.0  # pixels from the edge of a tile at which a box ends there


def merged(boxes: Tensor, scores: Tensor, labels: Tensor, cut: Tensor) -> Tensor:
    """Merge what overlapping tiles found: of two boxes of a class that are one object the surer one
    stays, and a box that its tile has cut only where no whole one is there.

    Args:
        boxes: [N, 4], corners in pixels of the image.
        scores, labels: [N].
        cut: [N], whether the edge of a tile goes through the object.

    Returns:
        Indices of what stays, the surest first.
    """
    order = sorted(range(len(boxes)), key=lambda i: (bool(cut[i]), -float(scores[i])))
    same = (_contained(boxes) >= CONTAINED) & (labels[:, None] == labels[None])
    kept: list[int] = []
    for index in order:
        if not same[index, kept].any():
            kept.append(index)
    chosen = torch.tensor(kept, dtype=torch.int64)
    return chosen[surest(scores[chosen])]


def cut_by(window: Window, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Whether boxes end at an edge of their tile that is none of the image.

    Args:
        window: the tile.
        boxes: [N, 4], corners in pixels of the image.
        size: height and width of the image, pixels.

    Returns:
        [N], true or false.
    """
    height, width = size
    right, bottom = window.left + window.width, window.top + window.height
    x1, y1, x2, y2 = boxes.unbind(dim=1)
    sides = (
        (x1 <= window.left + EDGE) & (window.left > 0),
        (y1 <= window.top + EDGE) & (window.top > 0),
        (x2 >= right - EDGE) & (right < width),
        (y2 >= bottom - EDGE) & (bottom < height),
    )
    return torch.stack(sides).any(dim=0)


def surest(scores: Tensor) -> Tensor:
    """Indices of scores [N] from the highest to the lowest."""
    return scores.argsort(descending=True, stable=True)


def _contained(boxes: Tensor) -> Tensor:
    """[N, N], the share of the smaller of two boxes that lies in the other."""
    areas = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)
    overlaps = box_iou(boxes, boxes)
    shared = overlaps * (areas[:, None] + areas[None]) / (1 + overlaps)
    share: Tensor = shared / torch.minimum(areas[:, None], areas[None]).clamp(min=1e-9)
    return share
