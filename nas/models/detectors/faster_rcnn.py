"""Faster R-CNN with a feature pyramid (Ren et al. 2015; Lin et al. 2017), torchvision's, with
RoIAlign or RoIPool.

What differs from torchvision's network: boxes are regressed for the classes only, not for the
background, and the scales of the pyramid are given instead of guessed from the first batch, which
goes wrong for images of less than about 90 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign, roi_align, roi_pool
from torchvision.ops.poolers import LevelMapper

from nas.config.detections import DetectionLimits
from nas.config.sections import DetectorSpec
from nas.models.detectors.dense_head import PyramidAnchors
from nas.models.detectors.normalization import Losses
from nas.models.detectors.output_calibration import TrainingSample
from nas.models.detectors.region_calibration import (
    calibrate_box_predictor,
    calibrate_proposals,
    region_maps,
)
from nas.models.detectors.region_losses import (
    BoxHeads,
    ProposalNetwork,
    box_losses,
    image_counts,
)
from nas.models.detectors.transform import BatchTransform
from nas.models.detectors.two_stage_detector import TwoStageDetector
from nas.models.necks.pyramid import PyramidBackbone

STRIDES = (4, 8, 16, 32, 64)
ROI_LEVELS = 4
ROI_SIZE = 7
ANCHOR_SCALE = 8  # side of the square anchor, in strides
ASPECT_RATIOS = (0.5, 1.0, 2.0)
COUNTED_PROPOSALS = 1000  # of one image, as in the published counts of two-stage detectors
LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")
POSITIVE_SHARE = 0.25  # of the proposals that are learnt from: how many may be objects


class FasterRcnn(TwoStageDetector):
    """Faster R-CNN (Ren et al., NeurIPS 2015) on a feature pyramid, with two fully connected layers
    on each region.

    Args:
        backbone: five pyramid levels at strides 4 to 64.
        num_classes: without the background, which is class 0 inside.
        hidden: width of the two fully connected layers.
        regions: proposals of one image that are learnt from.
        roi_op: `align` (Mask R-CNN, section 3) or `pool` (Fast R-CNN, section 2.1), as in the
            paper's Table 1.
        limits: which detections it gives.
        object_scale: of the anchors' sides, as a multiple of the published ones.
    """

    def __init__(
        self,
        backbone: PyramidBackbone,
        num_classes: int,
        *,
        hidden: int,
        regions: int,
        roi_op: str,
        limits: DetectionLimits,
        object_scale: float = 1.0,
    ) -> None:
        channels = backbone.out_channels
        proposals = region_proposals(channels, object_scale)
        heads = BoxHeads(
            PyramidRoIAlign() if roi_op == "align" else PyramidRoIPool(),
            TwoMLPHead(channels * ROI_SIZE**2, hidden),
            BoxPredictor(hidden, num_classes),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=regions,
            positive_fraction=POSITIVE_SHARE,
            bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),
            score_thresh=limits.score,
            nms_thresh=limits.nms_iou,
            detections_per_img=limits.count,
        )
        super().__init__(backbone, proposals, heads, BatchTransform())

    @classmethod
    def from_spec(cls, backbone: PyramidBackbone, num_classes: int, spec: DetectorSpec) -> Self:
        return cls(
            backbone,
            num_classes,
            hidden=spec.hidden,
            regions=spec.regions,
            roi_op=spec.roi_op,
            limits=spec.limits,
            object_scale=spec.object_scale,
        )

    def predictors(self) -> list[nn.Conv2d | nn.Linear]:
        """Last layers: objectness and offsets of anchors, logits and offsets of regions."""
        rpn, box = self.rpn.head, self.roi_heads.box_predictor
        return [rpn.cls_logits, rpn.bbox_pred, box.cls_score, box.bbox_pred]

    def init_heads(self) -> None:
        """N(0, 0.01^2); N(0, 0.001^2) for the final boxes (Fast R-CNN, section 3.1)."""
        for predictor in self.predictors():
            nn.init.normal_(predictor.weight, std=0.01)
        nn.init.normal_(self.roi_heads.box_predictor.bbox_pred.weight, std=0.001)

    def loss_counts(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> Losses:
        """Count images; see `Detector.loss_counts`."""
        return image_counts(images, LOSSES)

    @torch.no_grad()
    def calibrate_outputs(self, sample: TrainingSample) -> dict[str, Any]:
        """Set the biases of the region proposal network, then those of the box head from the
        regions that it is given; see `Detector.calibrate_outputs`.
        """
        found = calibrate_proposals(self.rpn, sample)
        if not found:
            return {}
        labels, offsets = [], []
        for batch in sample.batches:
            _, proposals, _ = region_maps(self, batch)
            sampled = self.roi_heads.select_training_samples(proposals, batch.targets)
            labels += sampled[2]
            offsets += sampled[3]
        predictor = self.roi_heads.box_predictor
        return found | calibrate_box_predictor(predictor, torch.cat(labels), torch.cat(offsets))

    def worst_case_losses(
        self, levels: list[Tensor], images: Tensor, boxes_per_image: int
    ) -> list[Tensor]:
        """Compute the losses on as many proposals as are sampled for each image, all pooled from
        the finest level; see `Detector.worst_case_losses`. The region proposal network's own
        selection is left out: its tensors are gone before the peak.
        """
        rpn = bounded_proposal_losses(self.rpn, levels, boxes_per_image)
        rois = images.new_zeros(len(images) * self.roi_heads.fg_bg_sampler.batch_size_per_image, 5)
        if isinstance(self.roi_heads.box_roi_pool, PyramidRoIPool):
            pooled = roi_pool(levels[0], rois, (ROI_SIZE, ROI_SIZE), 1 / STRIDES[0])
        else:
            pooled = roi_align(
                levels[0], rois, (ROI_SIZE, ROI_SIZE), 1 / STRIDES[0], sampling_ratio=2
            )
        logits, offsets = self.roi_heads.box_predictor(self.roi_heads.box_head(pooled))
        labels = torch.zeros(len(rois), dtype=torch.int64, device=images.device)
        wanted = images.new_zeros(len(rois), 4)
        return [*rpn, *box_losses(logits, offsets, [labels], [wanted]).values()]

    def heads_forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        objectness, offsets = self.rpn.head(list(levels))
        regions = levels[0].new_empty(
            COUNTED_PROPOSALS * len(levels[0]), levels[0].shape[1], ROI_SIZE, ROI_SIZE
        )
        found = self.roi_heads.box_predictor(self.roi_heads.box_head(regions))
        return [*objectness, *offsets, *found]


def region_proposals(channels: int, object_scale: float = 1.0) -> ProposalNetwork:
    """Make a region proposal network for pyramid levels of `channels` at `STRIDES`: torchvision's,
    with three anchors a location, `object_scale` times as large as published, and at most 2000
    proposals of an image in training, 1000 in evaluation.
    """
    kept = {"training": 2000, "testing": 1000}
    return ProposalNetwork(
        PyramidAnchors(ANCHOR_SCALE * object_scale, STRIDES, ASPECT_RATIOS),
        ProposalHead(channels, len(ASPECT_RATIOS)),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n=kept,
        post_nms_top_n=kept,
        nms_thresh=0.7,
    )


def bounded_proposal_losses(
    rpn: RegionProposalNetwork, levels: Sequence[Tensor], boxes_per_image: int
) -> list[Tensor]:
    """Stand-ins for the two losses of a region proposal network that keep the tensors that those
    keep, after its anchors have been matched with the boxes of an image.

    Args:
        rpn: the network.
        levels: maps of the pyramid.
        boxes_per_image: of the image with the most.
    """
    flat = [torch.cat([level.flatten() for level in maps]) for maps in rpn.head(list(levels))]
    proposals = flat[1].new_empty(len(flat[0]), 4)  # decoded, and held to the end
    anchors = flat[1].new_empty(len(proposals) // len(levels[0]), 4)
    if boxes_per_image:
        rpn.proposal_matcher((flat[1].new_empty(boxes_per_image, 4), anchors))
    return [each.square().mean() for each in flat]


class ProposalHead(RPNHead):
    """torchvision's head of region proposals, with outputs in fp32 also under autocast: torchvision
    decodes boxes in the type of their offsets, and near 1000 pixels bf16 knows multiples of 4 only.
    """

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        objectness, offsets = super().forward(x)
        return [level.float() for level in objectness], [level.float() for level in offsets]


class BoxPredictor(nn.Module):
    """Predicts classes and boxes of regions: [R, hidden] -> logits [R, 1 + K], offsets [R, 4 (1 +
    K)]. The offsets of the background are constant zero.
    """

    def __init__(self, hidden: int, num_classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(hidden, 1 + num_classes)
        self.bbox_pred = nn.Linear(hidden, 4 * num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(x), F.pad(self.bbox_pred(x), (4, 0))


class PyramidRoIAlign(MultiScaleRoIAlign):
    """RoIAlign to `size` x `size` on the level that fits a box (feature pyramid networks, equation
    1), scales 1/4 to 1/32.
    """

    def __init__(self, size: int = ROI_SIZE) -> None:
        super().__init__(
            [str(level) for level in range(ROI_LEVELS)], output_size=size, sampling_ratio=2
        )
        self.scales = [1 / stride for stride in STRIDES[:ROI_LEVELS]]
        self.map_levels = LevelMapper(2, 1 + ROI_LEVELS)


class PyramidRoIPool(PyramidRoIAlign):
    """RoIPool over the pyramid, which rounds boxes to whole cells (Fast R-CNN, section 2.1)."""

    def forward(
        self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> Tensor:
        levels = self.map_levels(boxes)
        image = torch.cat([torch.full_like(b[:, :1], i) for i, b in enumerate(boxes)])
        rois = torch.cat([image, torch.cat(boxes)], dim=1)
        features = [x[name] for name in self.featmap_names]
        pooled = features[0].new_zeros(len(rois), features[0].shape[1], *self.output_size)
        for level, (feature, scale) in enumerate(zip(features, self.scales, strict=True)):
            here = torch.where(levels == level)[0]
            pooled = pooled.index_put(
                (here,), roi_pool(feature, rois[here], self.output_size, scale).to(pooled.dtype)
            )
        return pooled
