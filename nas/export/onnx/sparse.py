"""The head of Sparse R-CNN as ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from nas.export.onnx.pieces import Found, Value, append, like_found, pooled, ranked
from nas.models.detectors.sparse_rcnn_head import moved_boxes


def add_sparse_rcnn(
    graph: Any, detector: Any, image: Value, levels: Sequence[Value]
) -> list[Value]:
    """Append the head of a `SparseRcnn`; what it finds."""
    boxes, features = append(graph, _Start(detector.head), "start", [image])
    for number, stage in enumerate(detector.head.stages, start=1):
        piece = _Stage(stage, detector.head.pool)
        inputs = [boxes, features, *levels]
        boxes, features, logits = append(graph, piece, f"step_{number}", inputs, key="step")
    return append(graph, _Choice(detector), "choice", [image, boxes, logits], like_found())


class _Start(nn.Module):
    """The image to its learned proposals: boxes [P, 4] and features [P, C]."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.proposals, self.proposal_features = head.proposals, head.proposal_features

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        height, width = image.shape[2:]
        sides = [torch.full((1, 1), side, dtype=torch.float32) for side in (width, height)]
        return self.proposals(torch.cat(sides * 2, dim=1))[0], self.proposal_features + 0


class _Stage(nn.Module):
    """Boxes [P, 4] and features [P, C] to those of the next stage, and class logits [P, K]."""

    def __init__(self, stage: Any, pool: Any) -> None:
        super().__init__()
        self.stage, self.pool = stage, pool

    def forward(
        self, boxes: Tensor, features: Tensor, *levels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        regions = pooled(self.pool, levels, boxes)
        features, logits, offsets = self.stage(features[None], regions)
        return moved_boxes(boxes[None], offsets)[0], features[0], logits[0]


class _Choice(nn.Module):
    """The best of the last stage's proposals and classes; nothing is suppressed."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.limits = detector.limits

    def forward(self, image: Tensor, boxes: Tensor, logits: Tensor) -> Found:
        scores, place = ranked(logits.sigmoid().flatten(), self.limits.count)
        classes = logits.shape[1]
        boxes = clip_boxes_to_image(boxes[place // classes], image.shape[2:])
        counted = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        if self.limits.score:
            counted &= scores > self.limits.score
        return boxes[counted], scores[counted], (place % classes + 1)[counted]
