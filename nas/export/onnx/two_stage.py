"""The heads of Faster R-CNN and Cascade R-CNN as ONNX: as torchvision's region proposal network and
RoI heads have it.
"""

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
    pooled,
    ranked,
    suppressed,
)
from nas.models.detectors.faster_rcnn import ROI_LEVELS
from nas.models.detectors.mask_head import averaged_masks

LEAST_SIDE = 1e-2  # of a box, pixels: RoIHeads' own


def add_faster_rcnn(
    graph: Any, detector: Any, image: Value, levels: Sequence[Value]
) -> list[Value]:
    """Append the heads of a `FasterRcnn`; what they find."""
    regions, heads = _add_proposals(graph, detector, image, levels), detector.roi_heads
    looked = _add_look(graph, heads, "look", regions, levels)
    return _add_choice(graph, heads, image, regions, [looked])


def add_cascade_rcnn(
    graph: Any, detector: Any, image: Value, levels: Sequence[Value]
) -> list[Value]:
    """Append the heads of a `CascadeMaskRcnn`; what they find, masks too where it has them."""
    stages = [*detector.roi_heads.stages]
    regions, looked = _add_proposals(graph, detector, image, levels), []
    for number, stage in enumerate(stages, start=1):
        looked.append(_add_look(graph, stage, f"look_{number}", regions, levels))
        if stage is not stages[-1]:
            inputs = [image, regions, *looked[-1]]
            (regions,) = append(graph, _Refined(stage), f"refined_{number}", inputs)
    found = _add_choice(graph, stages[-1], image, regions, looked)
    if not detector.masks:
        return found
    boxes, _, labels = found
    inputs, logits = [boxes, *levels[:ROI_LEVELS]], []
    for number, stage in enumerate(stages, start=1):
        logits += append(graph, _MaskLook(stage), f"mask_{number}", inputs, key="mask")
    return [*found, *append(graph, _Masks(), "masks", [labels, *logits])]


def _add_proposals(graph: Any, detector: Any, image: Value, levels: Sequence[Value]) -> Value:
    rpn, found = detector.rpn, []
    for index, level in enumerate(levels):
        outputs = append(graph, _RpnLevel(rpn), f"rpn_{index}", [level], key="rpn", weights="rpn")
        piece = _Candidates(rpn, index)
        found += append(graph, piece, f"candidates_{index}", [image, *outputs], like_found())
    choice = Suppressed(rpn.nms_thresh, rpn.post_nms_top_n())
    return append(graph, choice, "proposals", found, like_found())[0]


def _add_look(
    graph: Any, heads: Any, name: str, regions: Value, levels: Sequence[Value]
) -> list[Value]:
    return append(graph, _Look(heads), name, [regions, *levels[:ROI_LEVELS]], key="look")


def _add_choice(
    graph: Any, heads: Any, image: Value, regions: Value, looked: Sequence[Sequence[Value]]
) -> list[Value]:
    logits, offsets = [logits for logits, _ in looked], looked[-1][1]
    inputs = [image, regions, offsets, *logits]
    return append(graph, _Choice(heads), "choice", inputs, like_found())


class _RpnLevel(nn.Module):
    """A level to objectness logits [1, A, H, W] and box deltas [1, 4 A, H, W]."""

    def __init__(self, rpn: Any) -> None:
        super().__init__()
        self.head = rpn.head

    def forward(self, level: Tensor) -> tuple[Tensor, Tensor]:
        (scores,), (deltas,) = self.head([level])
        return scores, deltas


class _Candidates(nn.Module):
    """What the head gives on a level to the best regions there; the level is their label, because
    those of two levels do not suppress each other.
    """

    def __init__(self, rpn: Any, index: int) -> None:
        super().__init__()
        self.anchors, self.label = rpn.anchor_generator.of_level(index), index
        self.coder, self.count, self.least = rpn.box_coder, rpn.pre_nms_top_n(), rpn.min_size

    def forward(self, image: Tensor, logits: Tensor, deltas: Tensor) -> Found:
        deltas = deltas[0].unflatten(0, (logits.shape[1], 4)).permute(2, 3, 0, 1).reshape(-1, 4)
        # By logits: where the network is sure, probabilities are all 1.
        best, chosen = ranked(logits[0].permute(1, 2, 0).flatten(), self.count)
        scores = best.sigmoid()
        anchors = anchors_of(self.anchors, image, logits)[chosen]
        boxes = self.coder.decode_single(deltas[chosen], anchors)
        boxes = clip_boxes_to_image(boxes, image.shape[2:])
        large = (boxes[:, 2:] - boxes[:, :2] >= self.least).all(dim=1)
        return boxes, torch.where(large, scores, OUT), torch.full_like(chosen, self.label)


class _Look(nn.Module):
    """Regions [R, 4] and the levels to class logits [R, 1 + K] and box offsets [R, 4 (1 + K)]."""

    def __init__(self, heads: Any) -> None:
        super().__init__()
        self.box_roi_pool, self.box_head = heads.box_roi_pool, heads.box_head
        self.box_predictor = heads.box_predictor

    def forward(self, regions: Tensor, *levels: Tensor) -> tuple[Tensor, Tensor]:
        logits, offsets = self.box_predictor(
            self.box_head(pooled(self.box_roi_pool, levels, regions))
        )
        return logits, offsets


class _Refined(nn.Module):
    """The regions that a stage of a cascade hands on."""

    def __init__(self, stage: Any) -> None:
        super().__init__()
        self.moved = stage.moved

    def forward(self, image: Tensor, regions: Tensor, logits: Tensor, offsets: Tensor) -> Tensor:
        classes = logits[:, 1:].argmax(dim=1) + 1
        moved: Tensor = clip_boxes_to_image(self.moved(regions, offsets, classes), image.shape[2:])
        return moved


class _Choice(nn.Module):
    """Regions, their offsets and the logits of each look at them to detections."""

    def __init__(self, heads: Any) -> None:
        super().__init__()
        self.coder, self.threshold = heads.box_coder, heads.score_thresh
        self.limits = heads.nms_thresh, heads.detections_per_img

    def forward(self, image: Tensor, regions: Tensor, offsets: Tensor, *logits: Tensor) -> Found:
        scores = torch.stack([each.softmax(dim=1) for each in logits]).mean(dim=0)[:, 1:]
        boxes = self.coder.decode_single(offsets, regions).unflatten(1, (-1, 4))[:, 1:]
        boxes = clip_boxes_to_image(boxes.flatten(0, 1), image.shape[2:])
        labels = torch.arange(1, scores.shape[1] + 1).expand_as(scores).flatten()
        scores, sides = scores.flatten(), boxes[:, 2:] - boxes[:, :2]
        counted = (scores > self.threshold) & (sides >= LEAST_SIDE).all(dim=1)
        (chosen,) = torch.where(counted)
        return suppressed((boxes[chosen], scores[chosen], labels[chosen]), *self.limits)


class _MaskLook(nn.Module):
    """Boxes [D, 4] and the levels to mask logits [D, K, S, S] of one stage."""

    def __init__(self, stage: Any) -> None:
        super().__init__()
        self.pool, self.head, self.predictor = (
            stage.mask_roi_pool,
            stage.mask_head,
            stage.mask_predictor,
        )

    def forward(self, boxes: Tensor, *levels: Tensor) -> Tensor:
        logits: Tensor = self.predictor(self.head(pooled(self.pool, levels, boxes)))
        return logits


class _Masks(nn.Module):
    """Labels [D] and the mask logits of each stage to masks [D, S, S]."""

    def forward(self, labels: Tensor, *logits: Tensor) -> Tensor:
        return averaged_masks(logits, labels)
