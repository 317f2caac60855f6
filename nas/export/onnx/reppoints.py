"""The head of RepPoints v2 as ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from nas.export.onnx.pieces import (
    OUT,
    Found,
    Suppressed,
    Value,
    anchors_of,
    append,
    like_found,
    ranked,
)
from nas.models.detectors.reppoints import CANDIDATES, REFINED_ON
from nas.models.detectors.reppoints_corners import refine_corners

OUTPUTS = ("logits", "refined", "corners")


def add_reppoints(graph: Any, detector: Any, image: Value, levels: Sequence[Value]) -> list[Value]:
    """Append the head of a `RepPointsV2`; what it finds."""
    head, outputs, found = _Level(detector.head), [], []
    for index, level in enumerate(levels):
        outputs.append(append(graph, head, f"head_{index}", [level], key="head", weights="head"))
        inputs, refined_on = [image, *outputs[index][:2]], REFINED_ON[index]
        if refined_on is not None:
            inputs.append(outputs[refined_on][2])
        piece = _Candidates(detector, index)
        found += append(graph, piece, f"candidates_{index}", inputs, like_found())
    limits = detector.limits
    return append(graph, Suppressed(limits.nms_iou, limits.count), "choice", found, like_found())


class _Level(nn.Module):
    """A level to the head's outputs on it."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.head = head

    def forward(self, level: Tensor) -> tuple[Tensor, ...]:
        outputs = self.head.of_level(level)
        return tuple(outputs[name] for name in OUTPUTS)


class _Candidates(nn.Module):
    """The head's logits and points on a level to the best boxes there, with corners where the
    verification on another level finds them.
    """

    def __init__(self, detector: Any, index: int) -> None:
        super().__init__()
        self.anchors, self.transform = (
            detector.anchor_generator.of_level(index),
            detector.box_transform,
        )
        self.boxes, self.threshold = detector.boxes, detector.limits.score
        refined_on = REFINED_ON[index]
        self.strides = [] if refined_on is None else [detector.anchor_generator.strides[refined_on]]

    def forward(self, image: Tensor, logits: Tensor, points: Tensor, *corners: Tensor) -> Found:
        chances, sets = (each[0].flatten(1).t() for each in (logits.sigmoid(), points))
        counted = torch.where(chances > self.threshold, chances, OUT)
        scores, chosen = ranked(counted.flatten(), CANDIDATES)
        classes, size = chances.shape[1], image.shape[2:]
        place = chosen // classes
        boxes = self.boxes(sets, anchors_of(self.anchors, image, logits))[place]
        boxes = clip_boxes_to_image(boxes, size)
        for (found,), stride in zip(corners, self.strides, strict=True):
            boxes = refine_corners(boxes, found[:2], found[2:], stride)
            boxes = clip_boxes_to_image(boxes, size)
        return boxes, scores, chosen % classes + 1
