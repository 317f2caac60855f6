"""Which level of a detector's pyramid the objects of a data set fall to, and how many of its cells
they span.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.config.sections import DetectorSpec
from nas.data.coco import CocoSplit

Array = NDArray[np.floating[Any]]
Indices = NDArray[np.intp]
LEVELS = 5
ANCHOR_SIDE = 8  # strides
RATIOS = {"atss": (1.0,), "faster_rcnn": (0.5, 1.0, 2.0), "cascade_mask_rcnn": (0.5, 1.0, 2.0)}
FINEST_STRIDE = {"fcos": 8, "atss": 8, "reppoints_v2": 8}  # pixels; others 4
RANGE, POINTS_SIDE = 8, 4  # strides: most to FCOS's farthest side, least of RepPoints' objects
CANONICAL, CANONICAL_LEVEL, POOLED_LEVELS = 224, 2, 4  # of a region; where it is at least so large


@dataclass(frozen=True)
class LevelUse:
    """A level of the pyramid.

    Args:
        stride: pixels.
        objects: how many objects of the training split are learned there: where their middle is.
        cells: median side of these in cells, root of width times height; None without objects.
    """

    stride: int
    objects: int
    cells: float | None


def finest_stride(detector: DetectorSpec) -> int:
    """Stride of the pyramid's finest level, pixels."""
    return FINEST_STRIDE.get(detector.name, 4)


def level_use(split: CocoSplit, detector: DetectorSpec, image_size: int) -> tuple[LevelUse, ...]:
    """Count the objects of a split by level, crowds left out.

    Args:
        split: checked.
        detector: by its ranges, its anchors, or (Sparse R-CNN) its regions.
        image_size: short side that images are resized to, pixels.
    """
    short = {image.id: min(image.width, image.height) for image in split.images}
    objects = split.boxes.objects
    sides = objects.bboxes[:, 2:] / objects.by_image(short)[:, None] * image_size
    level, spans = levels_of(sides, detector), np.sqrt(sides.prod(axis=1))
    return tuple(
        _use(finest_stride(detector) << index, spans[level == index]) for index in range(LEVELS)
    )


def _use(stride: int, spans: Array) -> LevelUse:
    cells = round(float(np.median(spans)) / stride, 1) if len(spans) else None
    return LevelUse(stride, len(spans), cells)


def levels_of(sides: Array, detector: DetectorSpec) -> Indices:
    """Level that the middle of each object is learned on, 0 for the finest.

    FCOS: by the distance to the farthest side (Tian et al., ICCV 2019, section 3.2). RepPoints v2:
    by the mean logarithm of the sides. Detectors with anchors: that of the anchor with the largest
    overlap. Sparse R-CNN: where its regions are cut out (feature pyramid networks, Lin et al.,
    CVPR 2017, equation 1).

    Args:
        sides: width and height [N, 2], pixels at the training size.
        detector: its name and `object_scale`.
    """
    strides = finest_stride(detector) * 2.0 ** np.arange(LEVELS)
    if detector.name == "fcos":
        limits = strides[:-1] * RANGE * detector.object_scale
        found: Indices = np.searchsorted(limits, sides.max(axis=1) / 2, side="right")
        return found
    if detector.name == "reppoints_v2":
        wanted = np.log2(sides / (POINTS_SIDE * detector.object_scale * strides[0])).mean(axis=1)
        return _clipped(wanted, LEVELS)
    if detector.name in RATIOS:
        return _largest_overlap(sides, strides * ANCHOR_SIDE * detector.object_scale, detector)
    wanted = np.log2(np.sqrt(sides.prod(axis=1)) / CANONICAL) + CANONICAL_LEVEL
    return _clipped(wanted, POOLED_LEVELS)


def _clipped(wanted: Array, levels: int) -> Indices:
    found: Indices = np.clip(np.floor(wanted), 0, levels - 1).astype(np.intp)
    return found


def _largest_overlap(sides: Array, anchor_sides: Array, detector: DetectorSpec) -> Indices:
    """One anchor after another: all overlaps at once are gigabytes for a million objects."""
    width, height = sides.T.astype(np.float32)
    largest, best = np.full(len(sides), -1, np.float32), np.zeros(len(sides), np.intp)
    for level, ratio in itertools.product(range(LEVELS), RATIOS[detector.name]):
        across, down = anchor_sides[level] / np.sqrt(ratio), anchor_sides[level] * np.sqrt(ratio)
        shared = np.minimum(width, across) * np.minimum(height, down)
        overlap = shared / (width * height + across * down - shared)
        closer = overlap > largest
        largest[closer], best[closer] = overlap[closer], level
    return best
