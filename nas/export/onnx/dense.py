"""The heads of FCOS and ATSS as ONNX."""

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
from nas.models.detectors.atss import Atss


def add_dense(graph: Any, detector: Any, image: Value, levels: Sequence[Value]) -> list[Value]:
    """Append the head of a `DenseDetector`; what it finds."""
    head, found = _Level(detector.head), []
    for index, level in enumerate(levels):
        outputs = append(graph, head, f"head_{index}", [level], key="head", weights="head")
        piece = _Candidates(detector, index)
        found += append(graph, piece, f"candidates_{index}", [image, *outputs], like_found())
    choice = Suppressed(detector.nms_thresh, detector.detections_per_img)
    return append(graph, choice, "choice", found, like_found())


class _Level(nn.Module):
    """A level to class logits [1, K, H, W], numbers of a box without the level's scale [1, 4, H, W]
    and centerness logits [1, 1, H, W].
    """

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.classes, self.boxes = head.classification_head, head.regression_head

    def forward(self, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = self.classes.cls_logits(self.classes.conv(level))
        return logits, *self.boxes.of_level(level)


class _Candidates(nn.Module):
    """What the head gives on a level to the best boxes there, as torchvision's FCOS has them;
    candidates of ATSS must also be likely by their class alone.
    """

    def __init__(self, detector: Any, index: int) -> None:
        super().__init__()
        self.anchors, regression = (
            detector.anchor_generator.of_level(index),
            detector.head.regression_head,
        )
        self.scale, self.activation = nn.Parameter(regression.scales[index]), regression.activation
        self.decode, self.by_class = detector.box_coder.decode, isinstance(detector, Atss)
        self.threshold, self.count = detector.score_thresh, detector.topk_candidates

    def forward(self, image: Tensor, logits: Tensor, numbers: Tensor, centerness: Tensor) -> Found:
        chances, central = (each.sigmoid()[0].flatten(1).t() for each in (logits, centerness))
        scores, classes = (chances * central).sqrt(), chances.shape[1]
        counted = scores > self.threshold
        if self.by_class:
            counted &= chances > self.threshold
        scores, chosen = ranked(torch.where(counted, scores, OUT).flatten(), self.count)
        place = chosen // classes
        boxes = self.activation(numbers * self.scale)[0].flatten(1).t()[place]
        boxes = self.decode(boxes, anchors_of(self.anchors, image, logits)[place])
        return clip_boxes_to_image(boxes, image.shape[2:]), scores, chosen % classes + 1
