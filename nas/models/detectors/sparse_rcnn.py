"""Sparse R-CNN (Sun et al., CVPR 2021): as many learned proposals as there can be objects, refined
six times, no anchors, no non-maximum suppression. The head is in `sparse_rcnn_head`, the losses
are in `sparse_rcnn_loss`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_convert, clip_boxes_to_image

from nas.config.detections import DetectionLimits
from nas.config.sections import DetectorSpec
from nas.models.detectors.base import Detector
from nas.models.detectors.dense_head import PRIOR
from nas.models.detectors.faster_rcnn import ROI_SIZE
from nas.models.detectors.normalization import Losses
from nas.models.detectors.output_calibration import TrainingSample, focal_bias
from nas.models.detectors.sparse_rcnn_head import DynamicHead
from nas.models.detectors.sparse_rcnn_loss import in_order, set_losses
from nas.models.detectors.transform import BatchTransform, empty_targets
from nas.models.necks.pyramid import NeckDims, PyramidBackbone


class SparseRcnn(Detector):
    """Sparse R-CNN (Sun et al., CVPR 2021): learned proposals, moved by six stages.

    Detections are the best of all proposals and classes, without suppression (section 3.1): 100
    whatever their score, where `limits` say nothing else.

    Args:
        backbone: four pyramid levels at strides 4 to 32.
        num_classes: without a background, which it does not have.
        proposals: boxes of each image; the published model has 300 (100 in the paper's own tables).
        limits: which detections it gives.
    """

    neck: ClassVar[NeckDims] = {"first": 0, "extra": "none"}

    def __init__(
        self,
        backbone: PyramidBackbone,
        num_classes: int,
        *,
        proposals: int,
        limits: DetectionLimits,
    ) -> None:
        super().__init__()
        self.backbone, self.transform, self.limits = backbone, BatchTransform(), limits
        self.head = DynamicHead(backbone.out_channels, num_classes, proposals)

    @classmethod
    def from_spec(cls, backbone: PyramidBackbone, num_classes: int, spec: DetectorSpec) -> Self:
        return cls(backbone, num_classes, proposals=spec.proposals, limits=spec.limits)

    def heads(self) -> list[nn.Module]:
        return [self.head]

    def predictors(self) -> list[nn.Conv2d | nn.Linear]:
        """Last layers: class logits and box offsets of every stage. What gives the dynamic weights
        is a layer inside, and none of them.
        """
        stages: Any = self.head.stages
        return [predictor for stage in stages for predictor in (stage.cls_logits, stage.bbox_pred)]

    def init_heads(self) -> None:
        """Xavier's uniform weights (Glorot & Bengio 2010) throughout the head and the prior for
        classes, as published. With the smaller predictors of other detectors all proposals begin
        alike, and classes are learned several times slower; with He's weights the layer that gives
        the dynamic ones begins eleven times larger than published, and AdamW hardly moves it.
        """
        stages: Any = self.head.stages
        for module in self.head.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
        for stage in stages:
            nn.init.constant_(stage.cls_logits.bias, -math.log((1 - PRIOR) / PRIOR))

    @torch.no_grad()
    def calibrate_outputs(self, sample: TrainingSample) -> dict[str, Any]:
        """Spread the proposals as the sample's boxes are, and set the class biases of all stages
        from the share of proposals that are matched with each class; see
        `Detector.calibrate_outputs`. Published proposals begin as the whole image.
        """
        boxes = torch.cat(
            [
                box_convert(target["boxes"].cpu(), "xyxy", "cxcywh") / torch.tensor(size[::-1] * 2)
                for target, size in zip(sample.targets, sample.sizes, strict=True)
            ]
        )
        if not len(boxes):
            return {}
        stages: Any = self.head.stages
        proposals, classes = len(self.head.proposal_boxes), stages[0].cls_logits.out_features
        order = torch.randperm(len(boxes)).repeat(-(-proposals // len(boxes)))[:proposals]
        self.head.proposal_boxes.copy_(boxes[order])
        labels = torch.cat([target["labels"].cpu() for target in sample.targets])
        counts = torch.bincount(labels - 1, minlength=classes)
        shares = counts / (len(sample.targets) * proposals)
        class_bias = focal_bias(shares)
        for stage in stages:
            stage.cls_logits.bias.copy_(class_bias)
        return {"class_shares": shares.tolist(), "class_biases": class_bias.tolist()}

    def detections(self, batch: ImageList, maps: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        logits, boxes = self.head([*maps.values()], _sizes(batch.image_sizes, batch.tensors))
        return _detections(logits[:, -1], boxes[:, -1], batch.image_sizes, self.limits)

    def loss_sums(
        self, batch: ImageList, maps: dict[str, Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[Losses, Losses]:
        sizes, levels = _sizes(batch.image_sizes, batch.tensors), [*maps.values()]
        maps.clear()  # nothing holds the pyramid while proposals are matched
        logits, boxes = self.head(levels, sizes)
        del levels
        counts = self.loss_counts([*batch.tensors], targets)
        return set_losses(logits, boxes, targets, sizes), counts

    def loss_counts(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> Losses:
        """Count boxes; see `Detector.loss_counts`."""
        boxes = sum(len(target["labels"]) for target in targets)
        count = torch.full((), boxes, device=images[0].device)
        return dict.fromkeys(("classification", "bbox_l1", "bbox_giou"), count)

    def worst_case_losses(
        self, levels: list[Tensor], images: Tensor, boxes_per_image: int
    ) -> list[Tensor]:
        """Compute the losses with every box matched and room on each level to pool all regions; see
        `Detector.worst_case_losses`. The matching itself runs on the host.
        """
        sizes = _sizes([(images.shape[2], images.shape[3])] * len(images), images)
        logits, boxes = self.head(levels, sizes)
        levels.clear()
        return list(
            set_losses(
                logits, boxes, empty_targets(images, boxes_per_image), sizes, in_order
            ).values()
        )

    def heads_forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Do the work of all stages, on as many proposals as the network has."""
        images, proposals = len(levels[0]), len(self.head.proposal_boxes)
        regions = levels[0].new_empty(images * proposals, levels[0].shape[1], ROI_SIZE, ROI_SIZE)
        return [*self.head.refine(levels[0].new_ones(images, 4), lambda boxes: regions)]


def _sizes(sizes: Sequence[tuple[int, int]], like: Tensor) -> Tensor:
    """[B, 4], width, height, width, height of each image, from (height, width); filled in on the
    device, without a copy.
    """
    filled = like.new_empty(len(sizes), 4)
    for row, (height, width) in zip(filled, sizes, strict=True):
        row[0::2], row[1::2] = width, height
    return filled


def _detections(
    logits: Tensor, boxes: Tensor, sizes: Sequence[tuple[int, int]], limits: DetectionLimits
) -> list[dict[str, Tensor]]:
    """The best of [B, P, K] with their boxes [B, P, 4], cut off at the border of the image; what is
    outside is left out.
    """
    classes = logits.shape[2]
    scores, place = logits.float().sigmoid().flatten(1).topk(min(limits.count, logits[0].numel()))
    found = []
    for of_image, best, index, size in zip(boxes, scores, place, sizes, strict=True):
        cut = clip_boxes_to_image(of_image[index // classes], size)
        inside = (cut[:, 2:] > cut[:, :2]).all(dim=1)
        if limits.score:
            inside &= best > limits.score
        found.append(
            {"boxes": cut[inside], "scores": best[inside], "labels": (index % classes + 1)[inside]}
        )
    return found
