"""RepPoints v2 (Chen et al., NeurIPS 2020; RepPoints: Yang et al., ICCV 2019): objects as sets of
nine points, regressed twice, helped by verification of corners and foreground.

As the published configuration, with these differences: He initialisation, focal loss on classes in
every case (Swin's detection figures use its quality variant), the moment transform of RepPoints as
the default (`corners` for v2's own), and what the functions say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import batched_nms, clip_boxes_to_image

from nas.config.detections import DetectionLimits
from nas.config.sections import DetectorSpec
from nas.models.batch_statistics import statistics_kept
from nas.models.detectors.base import Detector
from nas.models.detectors.dense_head import STRIDES, PyramidAnchors, centers_of
from nas.models.detectors.normalization import Losses, divided
from nas.models.detectors.output_calibration import TrainingSample
from nas.models.detectors.reppoints_calibration import calibrate_reppoints
from nas.models.detectors.reppoints_corners import refine_corners
from nas.models.detectors.reppoints_head import RepPointsHead
from nas.models.detectors.reppoints_loss import reppoints_losses
from nas.models.detectors.reppoints_points import TRANSFORMS
from nas.models.detectors.reppoints_targets import Levels
from nas.models.detectors.transform import BatchTransform, empty_targets
from nas.models.necks.pyramid import NeckDims, PyramidBackbone

CANDIDATES = 1000  # of a level
REFINED_ON = (
    None,
    0,
    0,
    1,
    1,
)  # level whose corners refine the boxes of a level (published; section 3.3 of the paper)


class RepPointsV2(Detector):
    """RepPoints v2 (Chen et al., NeurIPS 2020): boxes as sets of nine points, regressed twice,
    beside which corners and foreground are verified.

    Args:
        backbone: five pyramid levels at strides 8 to 128.
        num_classes: without the background.
        box_transform: how point sets become boxes: `moment` or `corners` (section 3.4).
        limits: which detections it gives.
        object_scale: of the sizes that a level takes, as a multiple of the published ones.
    """

    neck: ClassVar[NeckDims] = {"first": 1, "extra": "conv"}
    least_counts: ClassVar[Mapping[str, float]] = {"foreground": 0.0}  # sums of small weights

    def __init__(
        self,
        backbone: PyramidBackbone,
        num_classes: int,
        *,
        box_transform: str,
        limits: DetectionLimits,
        object_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.object_scale, self.limits = object_scale, limits
        self.backbone, self.transform = backbone, BatchTransform()
        self.anchor_generator = PyramidAnchors(1)
        self.head = RepPointsHead(backbone.out_channels, num_classes)
        self.box_transform = TRANSFORMS[box_transform]()

    @classmethod
    def from_spec(cls, backbone: PyramidBackbone, num_classes: int, spec: DetectorSpec) -> Self:
        return cls(
            backbone,
            num_classes,
            box_transform=spec.box_transform,
            limits=spec.limits,
            object_scale=spec.object_scale,
        )

    def heads(self) -> list[nn.Module]:
        return [self.head, self.box_transform]

    def predictors(self) -> list[nn.Conv2d | nn.Linear]:
        return [*self.head.predictors()]

    def init_heads(self) -> None:
        self.head.init_heads()

    @torch.no_grad()
    def calibrate_outputs(self, sample: TrainingSample) -> dict[str, Any]:
        """Set the initial points and the biases of classes, foreground and corners, see
        `calibrate_reppoints`.
        """
        return calibrate_reppoints(
            self.head, self.box_transform, self.anchor_generator, sample, self.object_scale
        )

    def detections(self, batch: ImageList, maps: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        levels = [*maps.values()]
        outputs = self.head(levels)
        boxes = self.boxes(outputs["refined"], self.anchor_generator(batch, levels)[0])
        of_images = zip(
            boxes, outputs["logits"].sigmoid(), outputs["corners"], batch.image_sizes, strict=True
        )
        return [_detect(*of_image, _shapes(levels), self.limits) for of_image in of_images]

    def loss_sums(
        self, batch: ImageList, maps: dict[str, Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[Losses, Losses]:
        return self._sums(batch, [*maps.values()], targets)

    @torch.no_grad()
    def loss_counts(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> Losses:
        """Count positives; those of the refined boxes follow from the initial ones that the
        network predicts, which takes a forward pass. See `Detector.loss_counts`.
        """
        with statistics_kept(self):
            return self.loss_sums(*self.maps(images), targets)[1]

    def worst_case_losses(
        self, levels: list[Tensor], images: Tensor, boxes_per_image: int
    ) -> list[Tensor]:
        """Compute the losses; see `Detector.worst_case_losses`. Nothing is bounded: every tensor
        has the size of the pyramid, or that times the boxes of an image.
        """
        batch = ImageList(images, [tuple(images.shape[-2:])] * len(images))
        return [
            loss.float()
            for loss in divided(
                *self._sums(batch, levels, empty_targets(images, boxes_per_image))
            ).values()
        ]

    def heads_forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        return [*self.head(levels).values()]

    def _sums(
        self, batch: ImageList, levels: Sequence[Tensor], targets: Any
    ) -> tuple[Losses, Losses]:
        outputs = self.head(levels)
        anchors = self.anchor_generator(batch, levels)[0]
        boxes = self.boxes(outputs["initial"], anchors), self.boxes(outputs["refined"], anchors)
        return reppoints_losses(
            outputs, boxes, centers_of(anchors), _shapes(levels), targets, self.object_scale
        )

    def boxes(self, points: Tensor, anchors: Tensor) -> Tensor:
        """Boxes [B, N, 4], pixels, of point sets [B, N, 18] at squares of one stride [N, 4]."""
        strides = anchors[:, 2:] - anchors[:, :2]
        boxes: Tensor = self.box_transform(points) * strides.repeat(1, 2) + centers_of(
            anchors
        ).repeat(1, 2)
        return boxes


def _detect(
    boxes: Tensor,
    scores: Tensor,
    corners: Tensor,
    size: tuple[int, int],
    levels: Levels,
    limits: DetectionLimits,
) -> dict[str, Tensor]:
    """Detections of one image of (height, width) from boxes [N, 4], scores [N, K] and corners [N,
    6] of all levels.
    """
    counts = [height * width for height, width, _ in levels]
    maps = [
        each.t().unflatten(1, (height, width))
        for each, (height, width, _) in zip(corners.float().split(counts), levels, strict=True)
    ]
    found = []
    for here, chances, refined_on in zip(
        boxes.split(counts), scores.split(counts), REFINED_ON, strict=True
    ):
        chosen, confidence, classes = _candidates(
            clip_boxes_to_image(here, size), chances, limits.score
        )
        if refined_on is not None:
            corner_map = maps[refined_on]
            chosen = refine_corners(chosen, corner_map[:2], corner_map[2:], levels[refined_on][2])
        found.append((clip_boxes_to_image(chosen, size), confidence, classes))
    all_boxes, all_scores, all_classes = (torch.cat(parts) for parts in zip(*found, strict=True))
    kept = batched_nms(all_boxes, all_scores, all_classes, limits.nms_iou)[: limits.count]
    return {"boxes": all_boxes[kept], "scores": all_scores[kept], "labels": all_classes[kept] + 1}


def _candidates(boxes: Tensor, scores: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and classes (from 0) of the pairs of a level's boxes [n, 4] and classes that
    score best, [n, K].
    """
    ranked, order = scores.float().flatten().topk(min(CANDIDATES, scores.numel()))
    order = order[ranked > threshold]
    return boxes[order // scores.shape[1]], ranked[: len(order)], order % scores.shape[1]


def _shapes(levels: Sequence[Tensor]) -> Levels:
    return [
        (level.shape[2], level.shape[3], stride)
        for level, stride in zip(levels, STRIDES, strict=True)
    ]
