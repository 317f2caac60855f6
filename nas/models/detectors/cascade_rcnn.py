"""Cascade Mask R-CNN (Cai & Vasconcelos, CVPR 2018, TPAMI 2019), with the heads of Swin's published
configuration.

Three stages, each trained on what the one before made of its boxes, with a higher IoU from which a
box is of an object. Scores and masks are averages over the stages, boxes those of the last. From
the original come the stages, their IoU and the coding of boxes; from Swin's configuration
(cascade_mask_rcnn_swin_tiny_..._giou_4conv1f) the layers, the loss weights 1, 0.5, 0.25 and the
GIoU loss on decoded boxes. Each stage samples anew, with the objects' own boxes among its
proposals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from nas.config.detections import DetectionLimits
from nas.config.sections import DetectorSpec
from nas.models.detectors.cascade_heads import IOUS, CascadeHeads
from nas.models.detectors.faster_rcnn import (
    bounded_proposal_losses,
    region_proposals,
)
from nas.models.detectors.normalization import Losses
from nas.models.detectors.output_calibration import TrainingSample
from nas.models.detectors.region_calibration import (
    calibrate_proposals,
    region_maps,
)
from nas.models.detectors.region_losses import image_counts
from nas.models.detectors.transform import BatchTransform
from nas.models.detectors.two_stage_detector import TwoStageDetector
from nas.models.necks.pyramid import PyramidBackbone


class CascadeMaskRcnn(TwoStageDetector):
    """Cascade R-CNN (Cai & Vasconcelos, CVPR 2018) with the mask heads of Mask R-CNN (He et al.,
    ICCV 2017), in the configuration of Swin's published detectors.

    With masks, targets have `masks` [N, H, W], uint8, empty for a box without one.

    Args:
        backbone: five pyramid levels at strides 4 to 64.
        num_classes: without the background, which is class 0 inside.
        hidden: width of the fully connected layers.
        regions: boxes of one image that each stage learns from.
        masks: whether there are mask heads; without, it is Cascade R-CNN.
        limits: which detections it gives.
        object_scale: of the anchors' sides, as a multiple of the published ones.
    """

    can_mask: ClassVar[bool] = True
    roi_heads: CascadeHeads

    def __init__(
        self,
        backbone: PyramidBackbone,
        num_classes: int,
        *,
        hidden: int,
        regions: int,
        masks: bool,
        limits: DetectionLimits,
        object_scale: float = 1.0,
    ) -> None:
        proposals = region_proposals(backbone.out_channels, object_scale)
        heads = CascadeHeads(
            backbone.out_channels,
            num_classes,
            hidden=hidden,
            regions=regions,
            masks=masks,
            limits=limits,
        )
        super().__init__(backbone, proposals, heads, BatchTransform())
        self.masks = masks

    @classmethod
    def from_spec(cls, backbone: PyramidBackbone, num_classes: int, spec: DetectorSpec) -> Self:
        return cls(
            backbone,
            num_classes,
            hidden=spec.hidden,
            regions=spec.regions,
            masks=spec.masks,
            limits=spec.limits,
            object_scale=spec.object_scale,
        )

    def predictors(self) -> list[nn.Conv2d | nn.Linear]:
        """Last layers: objectness and offsets of anchors; class logits, box offsets and mask logits
        of each stage.
        """
        found = [self.rpn.head.cls_logits, self.rpn.head.bbox_pred]
        for stage in self.roi_heads.stages:
            found += [stage.box_predictor.cls_score, stage.box_predictor.bbox_pred]
            found += [stage.mask_predictor.mask_fcn_logits] if self.masks else []
        return found

    def init_heads(self) -> None:
        """N(0, 0.01^2); N(0, 0.001^2) for the stages' boxes (Fast R-CNN, section 3.1)."""
        for predictor in self.predictors():
            nn.init.normal_(predictor.weight, std=0.01)
        for stage in self.roi_heads.stages:
            nn.init.normal_(stage.box_predictor.bbox_pred.weight, std=0.001)

    def loss_counts(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> Losses:
        """Count images; for masks those that have one. See `Detector.loss_counts`."""
        stages = range(1, len(IOUS) + 1)
        names = [f"loss_{name}_{stage}" for stage in stages for name in ("classifier", "box_reg")]
        found = image_counts(images, ["loss_objectness", "loss_rpn_box_reg", *names])
        if self.masks:
            count = sum(
                (target["masks"].any() for target in targets if "masks" in target),
                torch.zeros_like(found["loss_objectness"]),
            )
            found |= dict.fromkeys((f"loss_mask_{stage}" for stage in stages), count)
        return found

    @torch.no_grad()
    def calibrate_outputs(self, sample: TrainingSample) -> dict[str, Any]:
        """Set the biases of the region proposal network, then those of one stage after the other
        from the regions that it is given; see `Detector.calibrate_outputs`.
        """
        found = calibrate_proposals(self.rpn, sample)
        if not found:
            return {}
        reached = [region_maps(self, batch) for batch in sample.batches]
        for number, stage in enumerate(self.roi_heads.stages, start=1):
            of_stage = self.roi_heads.calibrate_stage(stage, reached, sample.batches)
            found |= {f"{name}_{number}": value for name, value in of_stage.items()}
        return found

    def worst_case_losses(
        self, levels: list[Tensor], images: Tensor, boxes_per_image: int
    ) -> list[Tensor]:
        """Compute the losses on as many proposals as each stage samples, as many of them of objects
        as may be, all pooled from the finest level; the region proposal network is bounded as in
        `FasterRcnn`. See `Detector.worst_case_losses`.
        """
        return [
            *bounded_proposal_losses(self.rpn, levels, boxes_per_image),
            *self.roi_heads.worst_case_losses(levels[0], images),
        ]

    def heads_forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        objectness, offsets = self.rpn.head(list(levels))
        return [*objectness, *offsets, *self.roi_heads.run(levels[0])]
