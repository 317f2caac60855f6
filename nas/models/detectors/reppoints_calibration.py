"""Output calibration of RepPoints v2: the initial points as a grid over the mean box, and the
biases of classes, foreground and corners from the share of locations that have each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nas.models.detectors.atss_loss import match
from nas.models.detectors.dense_head import PyramidAnchors, centers_of
from nas.models.detectors.output_calibration import TrainingSample, focal_bias, set_bias
from nas.models.detectors.reppoints_head import RepPointsHead
from nas.models.detectors.reppoints_loss import HEAT_POWERS
from nas.models.detectors.reppoints_points import POINTS, kernel_grid
from nas.models.detectors.reppoints_targets import (
    LEAST_PIXELS,
    Levels,
    corner_targets,
    foreground_weights,
    initial_match,
)


@dataclass(frozen=True)
class _Locations:
    """The locations of one image and its objects."""

    anchors: Tensor
    levels: Levels
    target: dict[str, Tensor]

    @property
    def points(self) -> Tensor:
        return centers_of(self.anchors)

    @property
    def strides(self) -> Tensor:
        return self.anchors[:, 2:3] - self.anchors[:, :1]


def calibrate_reppoints(
    head: RepPointsHead,
    box_transform: nn.Module,
    anchors: PyramidAnchors,
    sample: TrainingSample,
    object_scale: float = 1.0,
) -> dict[str, Any]:
    """Set the biases of a head, in place.

    Args:
        head: of the detector.
        box_transform: makes boxes of its points.
        anchors: squares of one stride at its locations.
        sample: training images.
        object_scale: of the sizes that a level takes, as a multiple of the published ones.

    Returns:
        What was found and set; empty where the sample has no object.
    """
    half = _mean_half_sides(_images(anchors, sample), object_scale)
    if half is None:
        return {}
    found = _shares(_images(anchors, sample), half, head.logits.out_channels)
    verification = head.verification
    class_bias = focal_bias(found["class"])
    set_bias(head.initial_points, grid_over(half, box_transform))
    set_bias(head.logits, class_bias)
    set_bias(verification.foreground, focal_bias(found["foreground"]))
    for scores, share, weight in zip(
        verification.scores, found["corner"], found["negative_weight"].tolist(), strict=True
    ):
        set_bias(scores, focal_bias(share[None], weight))
    values = {f"{name}_shares": found[name].tolist() for name in ("class", "foreground", "corner")}
    return {"half_sides": half.tolist(), **values, "class_biases": class_bias.tolist()}


def grid_over(half: Tensor, box_transform: nn.Module) -> Tensor:
    """Nine points whose box has half sides [2], x and y in strides, around the location: [18].

    They are a 3 x 3 grid, the first two of them opposite corners.
    """
    grid = kernel_grid().view(POINTS, 2)
    order = [0, POINTS - 1, *range(2, POINTS - 1), 1]
    points = grid[order]
    box: Tensor = box_transform(points.flatten().to(half.device))
    scale = half / ((box[2:] - box[:2]) / 2)
    return (points.to(half.device) * scale.flip(0)).flatten()


def _images(anchors: PyramidAnchors, sample: TrainingSample) -> Iterator[_Locations]:
    for target, size in zip(sample.targets, sample.sizes, strict=True):
        shapes = zip(anchors.shapes(size), anchors.strides, strict=True)
        levels = [(height, width, stride) for (height, width), stride in shapes]
        yield _Locations(anchors.of_image(size, target["boxes"].device), levels, target)


def _mean_half_sides(images: Iterator[_Locations], object_scale: float) -> Tensor | None:
    """Exponential of the mean logarithm of the half sides of what initial points are to cover, x
    and y in strides: [2].
    """
    logs = []
    for image in images:
        boxes = image.target["boxes"]
        found = initial_match(image.points, image.levels, boxes, object_scale)
        sides = boxes[found[found >= 0]]
        half = (sides[:, 2:] - sides[:, :2]).clamp(min=LEAST_PIXELS) / 2
        logs.append((half / image.strides[found >= 0]).log())
    joined = torch.cat(logs)
    return joined.mean(dim=0).exp() if len(joined) else None


def _shares(images: Iterator[_Locations], half: Tensor, classes: int) -> dict[str, Tensor]:
    """Shares of locations by class, covered by a class, and with a corner of either kind; mean
    weight of those without one.
    """
    total = 0
    assigned, covered = torch.zeros(classes), torch.zeros(classes)
    here, weight = torch.zeros(2), torch.zeros(2)
    for image in images:
        boxes, labels = image.target["boxes"], image.target["labels"] - 1
        reach = half * image.strides
        initial = torch.cat([image.points - reach, image.points + reach], dim=1)
        index = match(initial, [h * w for h, w, _ in image.levels], boxes)
        total += len(index)
        assigned += torch.bincount(labels[index[index >= 0]].cpu(), minlength=classes)
        stride = image.levels[0][2]
        covers = foreground_weights(image.points, boxes, labels, classes, stride) > 0
        covered += covers.sum(dim=0).cpu()
        corners = corner_targets(image.points, image.levels, boxes)
        here += corners.here.sum(dim=0).cpu()
        misses = torch.where(corners.here, 0, (1 - corners.heat) ** HEAT_POWERS[1])
        weight += misses.sum(dim=0).cpu()
    return {
        "class": assigned / total,
        "foreground": covered / total,
        "corner": here / total,
        # In `focal_bias` a negative weighs three times a positive; in CornerNet's loss the same.
        "negative_weight": weight / (total - here) / 3,
    }
