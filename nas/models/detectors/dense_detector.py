"""What FCOS and ATSS have in common: torchvision's FCOS, with the head whose counts the paper's
tables have.

What differs from torchvision's network: tower convolutions have no bias (a group norm follows),
each pyramid level has a learned scale on its boxes (FCOS, Tian et al., ICCV 2019, section 3.2),
there is one logit per class, none for the background, and locations are where the pyramid has them
(`PyramidAnchors`).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.fcos import FCOSHead, FCOSRegressionHead
from torchvision.models.detection.image_list import ImageList

from nas.config.detections import DetectionLimits
from nas.config.sections import DetectorSpec
from nas.models.detectors.base import Detector
from nas.models.detectors.dense_head import PRIOR, STRIDES, PyramidAnchors, Tower
from nas.models.detectors.normalization import Losses, divided
from nas.models.detectors.output_calibration import (
    LocationStatistics,
    TrainingSample,
    focal_bias,
    location_statistics,
    logit,
)
from nas.models.detectors.transform import BatchTransform, empty_targets
from nas.models.necks.pyramid import NeckDims, PyramidBackbone


class DenseDetector(Detector, FCOS):
    """Predicts classes, one box and its centerness at every location of five pyramid levels at
    strides 8 to 128.

    Args:
        backbone: the pyramid.
        num_classes: K, without the background.
        limits: which detections it gives.
        object_scale: of the sizes of objects that a level takes, as a multiple of the published.

    Attributes:
        coder: decodes the four numbers of a box; None: torchvision's of FCOS does.
    """

    neck: ClassVar[NeckDims] = {"first": 1, "extra": "conv"}
    coder: ClassVar[Any] = None
    head: Any
    box_coder: Any
    anchor_generator: Any
    score_thresh: float

    def __init__(
        self,
        backbone: PyramidBackbone,
        num_classes: int,
        limits: DetectionLimits,
        object_scale: float = 1.0,
    ) -> None:
        channels = backbone.out_channels
        head = FCOSHead(channels, num_anchors=1, num_classes=num_classes)
        head.classification_head.conv = Tower(channels)
        head.regression_head = ScaledRegressionHead(channels, self.activation)
        super().__init__(
            backbone,
            num_classes,
            anchor_generator=PyramidAnchors(self.anchor_side(object_scale)),
            head=head,
            score_thresh=limits.score,
            nms_thresh=limits.nms_iou,
            detections_per_img=limits.count,
            topk_candidates=1000,
        )
        self.transform, self.object_scale = BatchTransform(), object_scale
        self.box_coder = self.coder or self.box_coder

    @classmethod
    def from_spec(cls, backbone: PyramidBackbone, num_classes: int, spec: DetectorSpec) -> Self:
        return cls(backbone, num_classes, spec.limits, spec.object_scale)

    def heads(self) -> list[nn.Module]:
        return [self.head]

    def predictors(self) -> list[nn.Conv2d | nn.Linear]:
        """Last layers: class logits, boxes and centerness."""
        regression = self.head.regression_head
        return [
            self.head.classification_head.cls_logits,
            regression.bbox_reg,
            regression.bbox_ctrness,
        ]

    def init_heads(self) -> None:
        """N(0, 0.01^2), and the prior on the classification bias."""
        for predictor in self.predictors():
            nn.init.normal_(predictor.weight, std=0.01)
        nn.init.constant_(
            self.head.classification_head.cls_logits.bias, -math.log((1 - PRIOR) / PRIOR)
        )

    @torch.no_grad()
    def calibrate_outputs(self, sample: TrainingSample) -> dict[str, Any]:
        """Set the biases of classes, boxes and centerness from the positives of the detector's own
        assignment; see `Detector.calibrate_outputs`.
        """
        classes = self.head.classification_head.num_classes
        found = location_statistics(sample, classes, self.anchor_generator, self.match, self.encode)
        if not found.positives:
            return {}
        regression = self.head.regression_head
        centerness = torch.tensor(found.centerness / found.positives)
        self.head.classification_head.cls_logits.bias.copy_(focal_bias(found.shares))
        regression.bbox_ctrness.bias.fill_(logit(centerness).item())
        self.set_boxes(found)
        return {
            "positives": found.levels.tolist(),
            "class_shares": found.shares.tolist(),
            "class_biases": self.head.classification_head.cls_logits.bias.tolist(),
            "box_biases": regression.bbox_reg.bias.tolist(),
            "level_scales": regression.scales.tolist(),
            "centerness": centerness.item(),
        }

    def detections(self, batch: ImageList, maps: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        levels = [*maps.values()]
        counts = [level.shape[2] * level.shape[3] for level in levels]
        outputs = {name: [*each.split(counts, dim=1)] for name, each in self.head(levels).items()}
        anchors = [[*each.split(counts)] for each in self.anchor_generator(batch, levels)]
        return self.postprocess_detections(outputs, anchors, batch.image_sizes)

    def loss_sums(
        self, batch: ImageList, maps: dict[str, Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[Losses, Losses]:
        return self._sums(batch, [*maps.values()], targets)

    @torch.no_grad()
    def loss_counts(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> Losses:
        """Count positives, from the targets alone; see `Detector.loss_counts`."""
        sides = [max(image.shape[axis] for image in images) for axis in (1, 2)]
        size, device = (sides[0], sides[1]), images[0].device
        anchors = self.anchor_generator.of_image(size, device)
        counts = self.anchor_generator.counts(size)
        empty = torch.zeros(len(images), len(anchors), 1, device=device)
        outputs = {
            "cls_logits": empty,
            "bbox_regression": empty.expand(-1, -1, 4),
            "bbox_ctrness": empty,
        }
        one_class = [{**target, "labels": torch.ones_like(target["labels"])} for target in targets]
        _, found = self.compute_loss(one_class, outputs, [anchors] * len(images), counts)
        return found

    def worst_case_losses(
        self, levels: list[Tensor], images: Tensor, boxes_per_image: int
    ) -> list[Tensor]:
        """Compute the losses with every location a positive; see `Detector.worst_case_losses`."""
        batch = ImageList(images, [tuple(images.shape[-2:])] * len(images))
        losses = divided(*self._sums(batch, levels, empty_targets(images, boxes_per_image)))
        return [loss.float() for loss in losses.values()]

    def heads_forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        return [*self.head(levels).values()]

    @staticmethod
    @abstractmethod
    def anchor_side(object_scale: float) -> float:
        """Side of the square anchor at every location, in strides."""

    @staticmethod
    @abstractmethod
    def activation(boxes: Tensor) -> Tensor:
        """What is applied to the four numbers of a box."""

    @abstractmethod
    def match(self, anchors: Tensor, counts: Sequence[int], boxes: Tensor) -> Tensor:
        """Find the box that each location is to predict.

        Args:
            anchors: [N, 4], one at each location.
            counts: how many of them each level has.
            boxes: [M, 4], of one image.

        Returns:
            Its index [N], -1 for none.
        """

    @abstractmethod
    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Numbers [P, 4] whose mean over the positives says where `set_boxes` sets the box biases,
        of anchors [P, 4] and their boxes [P, 4].
        """

    @abstractmethod
    def set_boxes(self, found: LocationStatistics) -> None:
        """Set the box biases from what `encode` gave, in place."""

    @abstractmethod
    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        counts: list[int],
    ) -> tuple[Losses, Losses]:
        """Sum the losses of a batch, and count what each is to be divided by.

        Args:
            targets: of each image, `boxes` [M, 4] and `labels` [M] from 1.
            head_outputs: `cls_logits` [B, N, K], `bbox_regression` [B, N, 4], `bbox_ctrness` [B, N,
                1].
            anchors: of each image [N, 4], all the same.
            counts: how many of the N locations each level has.
        """

    def _sums(
        self, batch: ImageList, levels: Sequence[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[Losses, Losses]:
        counts = [level.shape[2] * level.shape[3] for level in levels]
        return self.compute_loss(
            targets, self.head(levels), self.anchor_generator(batch, levels), counts
        )

    def postprocess_detections(
        self,
        head_outputs: dict[str, list[Tensor]],
        anchors: list[list[Tensor]],
        image_shapes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        """Choose the detections of each image, as torchvision's FCOS, with labels from 1 where it
        counts from 0.
        """
        found = super().postprocess_detections(head_outputs, anchors, image_shapes)
        return [{**detections, "labels": detections["labels"] + 1} for detections in found]


class ScaledRegressionHead(FCOSRegressionHead):
    """Predicts the four numbers of a box and its centerness at every location: levels [B, C, H_i,
    W_i] -> [B, N, 4], [B, N, 1] with N = sum of H_i W_i. Each level has a learned scale (FCOS,
    section 3.2).
    """

    def __init__(self, channels: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__(channels, num_anchors=1)
        self.conv = Tower(channels)
        self.scales = nn.Parameter(torch.ones(len(STRIDES)))
        self.activation = activation

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        boxes, centerness = [], []
        for level, scale in zip(levels, self.scales, strict=True):
            numbers, central = self.of_level(level)
            boxes.append(self.activation(numbers * scale).flatten(2).transpose(1, 2))
            centerness.append(central.flatten(2).transpose(1, 2))
        return torch.cat(boxes, dim=1), torch.cat(centerness, dim=1)

    def of_level(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers of a box [B, 4, H, W], before the scale, and centerness [B, 1, H, W]."""
        features = self.conv(level)
        return self.bbox_reg(features), self.bbox_ctrness(features)
