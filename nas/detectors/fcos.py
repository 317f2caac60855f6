"""FCOS (Tian et al., ICCV 2019), torchvision's, with the head whose counts the paper's Table 2 has.

What differs from torchvision's network: tower convolutions have no bias (a group norm follows), each pyramid level has a
learned scale on its box distances (FCOS, section 3.2), there is one logit per class, none for the background, and the losses
are ours (`nas.detectors.fcos_loss`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead, FCOSRegressionHead
from torchvision.models.detection.image_list import ImageList

from nas.detectors.contract import Detector
from nas.detectors.dense import PRIOR, Tower
from nas.detectors.fcos_loss import fcos_losses
from nas.detectors.inputs import BatchTransform, empty_targets
from nas.detectors.neck import NeckDims, PyramidBackbone
from nas.spec import DetectorSpec

STRIDES = (8, 16, 32, 64, 128)


class Fcos(FCOS, Detector):
    """torchvision's contract: labels of targets and detections count from 1, 0 is the background.

    Args:
        backbone: five pyramid levels at strides 8 to 128.
        num_classes: without the background.
    """

    neck: ClassVar[NeckDims] = {"first": 1, "extra": "conv"}
    head: Any
    anchor_generator: Any

    def __init__(self, backbone: PyramidBackbone, num_classes: int) -> None:
        channels = backbone.out_channels
        head = FCOSHead(channels, num_anchors=1, num_classes=num_classes)
        head.classification_head.conv = Tower(channels)
        head.regression_head = ScaledRegressionHead(channels)
        super().__init__(
            backbone,
            num_classes,
            anchor_generator=AnchorGenerator(tuple((stride,) for stride in STRIDES), ((1.0,),) * len(STRIDES)),
            head=head,
            score_thresh=0.05,
            nms_thresh=0.6,
            detections_per_img=100,
            topk_candidates=1000,
        )
        self.transform = BatchTransform()

    @classmethod
    def of(cls, backbone: PyramidBackbone, num_classes: int, spec: DetectorSpec) -> Self:
        return cls(backbone, num_classes)

    def heads(self) -> list[nn.Module]:
        return [self.head]

    def predictors(self) -> list[nn.Conv2d | nn.Linear]:
        """Of logits, distances and centerness."""
        regression = self.head.regression_head
        return [self.head.classification_head.cls_logits, regression.bbox_reg, regression.bbox_ctrness]

    def init_predictors(self) -> None:
        """N(0, 0.01^2), and the prior on the classification bias."""
        for predictor in self.predictors():
            nn.init.normal_(predictor.weight, std=0.01)
        nn.init.constant_(self.head.classification_head.cls_logits.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        if not self.training:
            return super().forward(images)
        if targets is None:
            raise ValueError("targets must be given in training")
        batch, _ = self.transform(images, None)
        levels = list(self.backbone(batch.tensors).values())
        anchors = self.anchor_generator(batch, levels)
        return self.compute_loss(targets, self.head(levels), anchors, [level.shape[2] * level.shape[3] for level in levels])

    def bounded_losses(self, levels: Sequence[Tensor], images: Tensor, boxes_per_image: int) -> list[Tensor]:
        """Every location is a positive."""
        outputs = self.head(levels)
        anchors = self.anchor_generator(ImageList(images, [tuple(images.shape[-2:])] * len(images)), levels)
        counts = [level.shape[2] * level.shape[3] for level in levels]
        losses = self.compute_loss(empty_targets(images, boxes_per_image), outputs, anchors, counts)
        return [loss.float() for loss in losses.values()]

    def run_heads(self, levels: Sequence[Tensor]) -> None:
        self.head(levels)

    def compute_loss(
        self, targets: list[dict[str, Tensor]], head_outputs: dict[str, Tensor], anchors: list[Tensor], counts: list[int]
    ) -> dict[str, Tensor]:
        """See `fcos_losses`; anchors are squares of one stride around each location."""
        points = (anchors[0][:, :2] + anchors[0][:, 2:]) / 2
        strides = anchors[0][:, 2] - anchors[0][:, 0]
        shifted = [{"boxes": target["boxes"], "labels": target["labels"] - 1} for target in targets]
        return fcos_losses(head_outputs, points, strides, shifted, (counts[0], counts[-1]))

    def postprocess_detections(
        self, head_outputs: dict[str, list[Tensor]], anchors: list[list[Tensor]], image_shapes: list[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        found = super().postprocess_detections(head_outputs, anchors, image_shapes)
        return [{**detections, "labels": detections["labels"] + 1} for detections in found]


class ScaledRegressionHead(FCOSRegressionHead):
    """Distances to the four sides in units of the stride, and centerness: levels -> [B, sum HW, 4], [B, sum HW, 1]."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, num_anchors=1)
        self.conv = Tower(channels)
        self.scales = nn.Parameter(torch.ones(len(STRIDES)))

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        distances, centerness = [], []
        for level, scale in zip(levels, self.scales, strict=True):
            features = self.conv(level)
            distances.append(F.relu(self.bbox_reg(features) * scale).flatten(2).transpose(1, 2))
            centerness.append(self.bbox_ctrness(features).flatten(2).transpose(1, 2))
        return torch.cat(distances, dim=1), torch.cat(centerness, dim=1)
