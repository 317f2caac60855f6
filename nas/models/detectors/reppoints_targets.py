"""What RepPoints v2 is to predict where (Yang et al., ICCV 2019, section 4; Chen et al., NeurIPS
2020, section 3.2).

Targets of one image, without a step that waits for the GPU. Levels come as (height, width, stride),
finest first; locations, x and y in pixels, are multiples of their level's stride, in the order of
levels, rows, columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nas.models.detectors.dense_head import BACKGROUND, centers_of

BASE_SCALE = 4  # side of the object that a level is for, in strides
MIN_IOU = 0.7  # that a box keeps when its corners move within the radius
LEAST_PIXELS = 1e-6  # of a box's side, where its logarithm is taken

Levels = Sequence[tuple[int, int, int]]


class CornerTargets(NamedTuple):
    """What every location of the levels, N in all, is to predict of upper left and lower right
    corners.

    Args:
        heat: [N, 2], 1 at a corner, falling to 0 around it.
        here: [N, 2], whether there is one.
        offsets: [N, 2, 2], x and y to it, in strides.
    """

    heat: Tensor
    here: Tensor
    offsets: Tensor


def initial_match(
    points: Tensor, levels: Levels, boxes: Tensor, object_scale: float = 1.0
) -> Tensor:
    """Index of the box that each location's initial points are to cover, -1 for none: [N], from
    points [N, 2], boxes [M, 4].

    A box belongs to the level whose stride is its side over 4 (times `object_scale`), rounded down
    to a power of 2 (RepPoints, section 4.2), and goes to the location there that is nearest to its
    centre, in units of its sides; a location takes the nearest box.
    """
    if not len(boxes):
        return torch.full((len(points),), BACKGROUND, dtype=torch.int64, device=points.device)
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=LEAST_PIXELS)
    wanted = (sides / (BASE_SCALE * object_scale)).log2().mean(dim=1).floor() - math.log2(
        levels[0][2]
    )
    level = wanted.clamp(0, len(levels) - 1).long()
    index = nearest_locations(centers_of(boxes), levels).gather(0, level[None]).squeeze(0)
    distance = ((points[index] - centers_of(boxes)) / sides).norm(dim=1)
    return cheapest(index, distance, len(points))


def corner_targets(points: Tensor, levels: Levels, boxes: Tensor) -> CornerTargets:
    """Place the corners of boxes on the levels: each at the nearest location, with a Gaussian
    within its radius around it (CornerNet, Law & Deng, ECCV 2018, section 3.2).

    Every level has every box. Where two boxes have their corner at one location, the offset is to
    the nearer.

    Args:
        points: [N, 2], x and y of the locations, pixels.
        levels: (height, width, stride) of each level.
        boxes: [M, 4], pixels.
    """
    if not len(boxes):
        shape = (len(points), 2)
        here = torch.zeros(shape, dtype=torch.bool, device=points.device)
        return CornerTargets(points.new_zeros(shape), here, points.new_zeros(*shape, 2))
    found = [
        _one_corner(points, levels, corner, gaussian_radius(boxes))
        for corner in (boxes[:, :2], boxes[:, 2:])
    ]
    return CornerTargets(*(torch.stack(parts, dim=1) for parts in zip(*found, strict=True)))


def foreground_weights(
    points: Tensor, boxes: Tensor, labels: Tensor, num_classes: int, stride: int
) -> Tensor:
    """Weigh the locations that classes cover, so that every object counts the same (RepPoints v2,
    section 3.2).

    Corners are rounded down to multiples of the finest stride, both ends inclusive, as in the
    published implementation, whose coarser levels take every second location of the finer one.

    Args:
        points: [N, 2], x and y of the locations, pixels.
        boxes: [M, 4], pixels.
        labels: [M], from 0.
        num_classes: K.
        stride: the finest, pixels.

    Returns:
        [N, K]: 1 / area in pixels of the smallest box of the class that covers the location, 0
        where none does.
    """
    weights = points.new_zeros(len(points), num_classes)
    if not len(boxes):
        return weights
    low, high = (torch.floor(corner / stride) * stride for corner in (boxes[:, :2], boxes[:, 2:]))
    inside = ((points[:, None] >= low) & (points[:, None] <= high)).all(dim=2)
    share = 1 / (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).clamp(min=1)
    return weights.scatter_reduce(1, labels.expand(len(points), -1), inside * share, "amax")


def gaussian_radius(boxes: Tensor) -> Tensor:
    """Distance that the corners of boxes [M, 4] may move so that the boxes keep an IoU of 0.7: [M],
    pixels.

    The least of three cases: both corners outwards, both inwards, both in the same direction
    (CornerNet, section 3.2).
    """
    width, height = (boxes[:, 2:] - boxes[:, :2]).unbind(1)
    total, area = width + height, width * height

    def smaller_root(square: float, linear: Tensor, constant: Tensor) -> Tensor:
        return (linear - (linear**2 - 4 * square * constant).clamp(min=0).sqrt()) / (2 * square)

    same = smaller_root(1, total, area * (1 - MIN_IOU) / (1 + MIN_IOU))
    inwards = smaller_root(4, 2 * total, area * (1 - MIN_IOU))
    outwards = -smaller_root(4 * MIN_IOU, 2 * MIN_IOU * total, area * (MIN_IOU - 1))
    return torch.minimum(torch.minimum(same, inwards), outwards)


def nearest_locations(xy: Tensor, levels: Levels) -> Tensor:
    """Index of the location of each of L levels that is nearest to points xy [M, 2]: [L, M]; of two
    equally near, the one before.
    """
    found, start = [], 0
    for height, width, stride in levels:
        column, row = (xy / stride - 0.5).ceil().long().unbind(1)
        found.append(start + row.clamp(0, height - 1) * width + column.clamp(0, width - 1))
        start += height * width
    return torch.stack(found)


def cheapest(index: Tensor, cost: Tensor, count: int) -> Tensor:
    """The claim of least cost for each of `count` locations: its place in the list, [count], -1
    where nobody claims it. Of equal ones the first.

    Args:
        index: the location that each claim is for, [M].
        cost: what each claim costs, [M].
        count: number of locations.
    """
    order = cost.argsort(stable=True)
    rank = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device))
    best = rank.new_full((count,), len(order)).scatter_reduce(0, index, rank, "amin")
    return torch.where(best < len(order), order[best.clamp(max=len(order) - 1)], BACKGROUND)


def _one_corner(
    points: Tensor, levels: Levels, corner: Tensor, radius: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Heat [N], whether there is a corner [N], offsets [N, 2]."""
    index = nearest_locations(corner, levels).flatten()
    claims = corner.repeat(len(levels), 1)
    found = cheapest(index, (points[index] - claims).norm(dim=1), len(points))
    here = found >= 0
    strides = torch.cat(
        [points.new_full((height * width,), stride) for height, width, stride in levels]
    )
    offsets = torch.where(
        here[:, None], (claims[found.clamp(min=0)] - points) / strides[:, None], 0
    )
    squared = (points[:, None] - corner).square().sum(dim=2)  # [N, M]
    deviation = (2 * radius + 1) / 6
    heat = torch.where(squared < radius**2, (-squared / (2 * deviation**2)).exp(), 0).amax(dim=1)
    return torch.where(here, 1, heat), here, offsets
