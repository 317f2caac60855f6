"""FCOS and Faster R-CNN as ONNX: one image of any size to its detections.

What torchvision selects by masks is here ranked and cut, because a graph for any size cannot ask
how many there are: what does not count gets a score below all others, is last in every ranking,
suppresses nothing, and is cut off at the end.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import boxes as box_ops
from torchvision.ops import nms, roi_align

from nas.errors import need
from nas.export.onnx.export import WRITERS, add_backbone
from nas.models.detectors import Detector
from nas.models.detectors.faster_rcnn import FasterRcnn, PyramidRoIPool
from nas.models.detectors.fcos import Fcos

OUT = -1.0  # score of what does not count


def why_not(detector: Detector) -> str:
    """Why a detector cannot be written as ONNX; empty where it can."""
    if not isinstance(detector, (Fcos, FasterRcnn)):
        return (
            f"{type(detector).__name__} is not exported to ONNX, only its backbone is; FCOS and "
            "Faster R-CNN are."
        )
    if isinstance(detector, FasterRcnn) and isinstance(
        detector.roi_heads.box_roi_pool, PyramidRoIPool
    ):
        return (
            "RoIPool is not exported to ONNX, only the backbone is; Faster R-CNN with RoIAlign is."
        )
    return ""


def detector_onnx(detector: Detector, templates: dict[str, Any] | None = None) -> bytes:
    """Write a detector as an ONNX model with the input `image` [1, 3, H, W], RGB in 0 to 1, already
    resized, and the outputs `boxes` [N, 4], `scores` [N] and `labels` [N], those that
    `detector([image])` gives.

    Args:
        detector: one that `why_not` says nothing about, in evaluation mode.
        templates: pieces that another graph of the same network has traced; new ones are added.

    Returns:
        The content of the file.

    Raises:
        MissingDependency: packages of the extra `onnx` are not there.
    """
    need("onnx", *WRITERS)
    from onnx import TensorProto

    from nas.export.onnx.graph import OnnxGraph

    graph, pyramid = OnnxGraph("image", 1, templates=templates), detector.backbone
    (batch,) = graph.add(_Prepared(detector), "prepared", ["image"], [torch.rand(1, 3, 70, 90)])
    maps = add_backbone(graph, pyramid.backbone, batch)[pyramid.first :]
    widths = pyramid.backbone.widths[pyramid.first :]
    examples = [
        torch.rand(1, width, 40 // 2**level, 60 // 2**level) for level, width in enumerate(widths)
    ]
    heads: nn.Module = (
        _FcosHeads(detector) if isinstance(detector, Fcos) else _FasterRcnnHeads(detector)
    )
    found = graph.add(heads, "heads", ["image", *maps], [torch.rand(1, 3, 70, 90), *examples])
    kinds = (("boxes", TensorProto.FLOAT, ["found", 4]), ("scores", TensorProto.FLOAT, ["found"]))
    outputs: dict[str, Any] = {
        name: (value, kind, shape)
        for value, (name, kind, shape) in zip(
            found, (*kinds, ("labels", TensorProto.INT64, ["found"])), strict=True
        )
    }
    return graph.finished(outputs)


class _Prepared(nn.Module):
    """An image as the backbone takes it: normalised, padded with zeros to a multiple of the largest
    stride.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.transform, self.multiple = detector.transform, detector.transform.size_divisible

    def forward(self, image: Tensor) -> Tensor:
        height, width = (
            (size + self.multiple - 1) // self.multiple * self.multiple for size in image.shape[2:]
        )
        return nn.functional.pad(
            self.transform.normalize(image), (0, width - image.shape[3], 0, height - image.shape[2])
        )


class _Heads(nn.Module):
    """The image (for its size) and the backbone's maps to boxes, scores and labels."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.detector = detector

    def levels(self, maps: tuple[Tensor, ...]) -> list[Tensor]:
        """The levels [B, C, H_i, W_i] that the neck makes of the backbone's four maps."""
        return list(
            self.detector.backbone.fpn({str(index): x for index, x in enumerate(maps)}).values()
        )

    def best(
        self, boxes: Tensor, scores: Tensor, labels: Tensor, limit: float, count: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """After suppression within each label, the first `count` by score, without those that do
        not count.
        """
        apart = labels.to(boxes) * (boxes.max() + 1)
        kept = nms(boxes + apart[:, None], scores, limit)
        kept = kept[scores[kept] > OUT][:count]
        return boxes[kept], scores[kept], labels[kept]


class _FcosHeads(_Heads):
    """As torchvision's FCOS has it after its head."""

    def forward(self, image: Tensor, *maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        levels, model = self.levels(maps), self.detector
        out = model.head(levels)
        size = image.shape[2:]
        (anchors,) = model.anchor_generator(ImageList(image, [size]), levels)
        start, found = 0, []
        for level in levels:
            count = level.shape[2] * level.shape[3]
            part = {name: value[0].narrow(0, start, count) for name, value in out.items()}
            found.append(self._candidates(part, anchors.narrow(0, start, count), size))
            start += count
        boxes, scores, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
        return self.best(boxes, scores, labels, model.nms_thresh, model.detections_per_img)

    def _candidates(
        self, out: dict[str, Tensor], anchors: Tensor, size: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        model = self.detector
        scores = (out["cls_logits"].sigmoid() * out["bbox_ctrness"].sigmoid()).sqrt().flatten()
        scores = torch.where(scores > model.score_thresh, scores, OUT)
        scores, chosen = scores.topk(torch.sym_min(model.topk_candidates, scores.shape[0]))
        classes = out["cls_logits"].shape[1]
        place = chosen // classes
        boxes = model.box_coder.decode(out["bbox_regression"][place], anchors[place])
        return box_ops.clip_boxes_to_image(boxes, size), scores, chosen % classes + 1


class _FasterRcnnHeads(_Heads):
    """As torchvision's region proposal network and RoI heads have it."""

    def forward(self, image: Tensor, *maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        levels, size = self.levels(maps), image.shape[2:]
        heads = self.detector.roi_heads
        proposals = self._proposals(image, levels, size)
        pooled = self._pooled(levels, proposals)
        logits, offsets = heads.box_predictor(heads.box_head(pooled))
        boxes = (
            heads.box_coder.decode_single(offsets, proposals)
            .unflatten(1, (-1, 4))[:, 1:]
            .flatten(0, 1)
        )
        boxes = box_ops.clip_boxes_to_image(boxes, size)
        scores = logits.softmax(dim=-1)[:, 1:]
        labels = torch.arange(1, scores.shape[1] + 1).expand_as(scores).flatten()
        scores = scores.flatten()
        sides = boxes[:, 2:] - boxes[:, :2]
        chosen = torch.where((scores > heads.score_thresh) & (sides >= 1e-2).all(dim=1))[
            0
        ]  # RoIHeads' own size
        return self.best(
            boxes[chosen],
            scores[chosen],
            labels[chosen],
            heads.nms_thresh,
            heads.detections_per_img,
        )

    def _proposals(self, image: Tensor, levels: list[Tensor], size: Any) -> Tensor:
        rpn = self.detector.rpn
        objectness, offsets = rpn.head(levels)
        (anchors,) = rpn.anchor_generator(ImageList(image, [size]), levels)
        start, found = 0, []
        for level, (scores, deltas) in enumerate(zip(objectness, offsets, strict=True)):
            kinds, (height, width) = scores.shape[1], scores.shape[2:]
            here = anchors.narrow(0, start, kinds * height * width)
            scores = scores[0].permute(1, 2, 0).flatten().sigmoid()
            deltas = deltas[0].unflatten(0, (kinds, 4)).permute(2, 3, 0, 1).reshape(-1, 4)
            scores, chosen = scores.topk(torch.sym_min(rpn.pre_nms_top_n(), scores.shape[0]))
            boxes = rpn.box_coder.decode_single(deltas[chosen], here[chosen])
            found.append((boxes, scores, torch.full_like(chosen, level)))
            start += kinds * height * width
        boxes, scores, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
        boxes = box_ops.clip_boxes_to_image(boxes, size)
        large = (boxes[:, 2:] - boxes[:, :2] >= rpn.min_size).all(dim=1)
        return self.best(
            boxes, torch.where(large, scores, OUT), labels, rpn.nms_thresh, rpn.post_nms_top_n()
        )[0]

    def _pooled(self, levels: list[Tensor], boxes: Tensor) -> Tensor:
        """From the level that fits each box; the others' results are left."""
        pool = self.detector.roi_heads.box_roi_pool
        fits = pool.map_levels([boxes])
        rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], dim=1)
        pooled: Any = 0.0
        for index, scale in enumerate(pool.scales):
            here = roi_align(levels[index], rois, pool.output_size, scale, pool.sampling_ratio)
            pooled = pooled + here * (fits == index).to(here)[:, None, None, None]
        regions: Tensor = pooled
        return regions
