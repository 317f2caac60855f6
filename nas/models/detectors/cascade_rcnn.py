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
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from nas.config.detections import DetectionLimits
from nas.config.sections import DetectorSpec
from nas.data.dataset import Batch
from nas.models.detectors.cascade_heads import MASK_ROI_SIZE, CascadeStage, Sampled
from nas.models.detectors.faster_rcnn import (
    COUNTED_PROPOSALS,
    POSITIVE_SHARE,
    ROI_SIZE,
    STRIDES,
    bounded_proposal_losses,
    region_proposals,
)
from nas.models.detectors.mask_head import averaged_masks, mask_loss, mask_targets
from nas.models.detectors.normalization import Losses
from nas.models.detectors.output_calibration import TrainingSample
from nas.models.detectors.region_calibration import (
    Reached,
    calibrate_box_predictor,
    calibrate_proposals,
    region_maps,
)
from nas.models.detectors.region_losses import image_counts
from nas.models.detectors.transform import BatchTransform
from nas.models.detectors.two_stage_detector import TwoStageDetector
from nas.models.necks.pyramid import PyramidBackbone

IOUS = (0.5, 0.6, 0.7)
BOX_WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
LOSS_WEIGHTS = (1.0, 0.5, 0.25)
COUNTED_MASKS = 100  # of one image, as in the published count
MASKS_AT_ONCE = 100  # of one image


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
        self, levels: Sequence[Tensor], images: Tensor, boxes_per_image: int
    ) -> list[Tensor]:
        """Compute the losses on as many proposals as each stage samples, as many of them of objects
        as may be, all pooled from the finest level; the region proposal network is bounded as in
        `FasterRcnn`. See `Detector.worst_case_losses`.
        """
        return [
            *bounded_proposal_losses(self.rpn, levels),
            *self.roi_heads.worst_case_losses(levels[0], images),
        ]

    def heads_forward(self, levels: Sequence[Tensor]) -> None:
        self.rpn.head(list(levels))
        self.roi_heads.run(levels[0])


class CascadeHeads(nn.Module):
    """The stages of a cascade, in the place of torchvision's `RoIHeads`.

    Args:
        channels: of the pyramid.
        num_classes: without the background.
        hidden: width of the fully connected layers.
        regions: boxes of one image that each stage learns from.
        masks: whether there are mask heads.
        limits: which detections the last stage gives.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        hidden: int,
        regions: int,
        masks: bool,
        limits: DetectionLimits,
    ) -> None:
        super().__init__()
        self.regions, self.masks = regions, masks
        self.stages: Any = nn.ModuleList(
            CascadeStage(
                channels,
                num_classes,
                hidden=hidden,
                regions=regions,
                iou=iou,
                box_weights=weights,
                masks=masks,
            )
            for iou, weights in zip(IOUS, BOX_WEIGHTS, strict=True)
        )
        last: Any = self.stages[-1]
        last.limit(limits)

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Detections of each image or losses, from a pyramid, proposals [N, 4] of each image and
        its height and width.
        """
        if self.training:
            assert targets is not None
            return [], self._losses(features, proposals, shapes, targets)
        return self._detections(features, proposals, shapes), {}

    def _losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        for number, (stage, weight) in enumerate(
            zip(self.stages, LOSS_WEIGHTS, strict=True), start=1
        ):
            sampled = stage.sample(proposals, targets)
            logits, offsets = stage.outputs(stage.box_roi_pool(features, sampled.boxes, shapes))
            found = stage.box_losses(logits, offsets, sampled)
            if self.masks:
                regions = stage.mask_roi_pool(features, sampled.of_objects(sampled.boxes), shapes)
                found["mask"] = _mask_loss(
                    stage.mask_logits(regions), sampled, [t.get("masks") for t in targets]
                )
            losses |= {f"loss_{name}_{number}": weight * loss for name, loss in found.items()}
            if number < len(self.stages):
                moved = stage.refined(
                    sampled.boxes, logits, offsets, shapes, torch.cat(sampled.labels)
                )
                proposals = [
                    boxes[proposed] for boxes, proposed in zip(moved, sampled.proposed, strict=True)
                ]
        return losses

    def _detections(
        self, features: dict[str, Tensor], proposals: list[Tensor], shapes: list[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        scores = []
        for number, stage in enumerate(self.stages, start=1):
            logits, offsets = stage.outputs(stage.box_roi_pool(features, proposals, shapes))
            scores.append(F.softmax(logits, dim=1))
            if number < len(self.stages):
                proposals = stage.refined(proposals, logits, offsets, shapes)
        # Logarithms, because the last stage's softmax makes the averages of them again.
        found = stage.postprocess_detections(
            torch.stack(scores).mean(dim=0).log(), offsets, proposals, shapes
        )
        detections = [
            dict(zip(("boxes", "scores", "labels"), each, strict=True))
            for each in zip(*found, strict=True)
        ]
        if self.masks:
            masks = self._masks(features, detections, shapes)
            detections = [
                {**each, "masks": part} for each, part in zip(detections, masks, strict=True)
            ]
        return detections

    def _masks(
        self,
        features: dict[str, Tensor],
        detections: list[dict[str, Tensor]],
        shapes: list[tuple[int, int]],
    ) -> list[Tensor]:
        """Masks [D, S, S] of the D detections of each image, of `MASKS_AT_ONCE` at a time: more of
        them take no more memory.
        """
        found: list[list[Tensor]] = [[] for _ in detections]
        longest = max(len(each["labels"]) for each in detections)
        for start in range(0, max(1, longest), MASKS_AT_ONCE):
            boxes, labels = (
                [each[name][start : start + MASKS_AT_ONCE] for each in detections]
                for name in ("boxes", "labels")
            )
            logits = [
                stage.mask_logits(stage.mask_roi_pool(features, boxes, shapes))
                for stage in self.stages
            ]
            masks = averaged_masks(logits, torch.cat(labels)).split([len(each) for each in boxes])
            for parts, part in zip(found, masks, strict=True):
                parts.append(part)
        return [torch.cat(parts) for parts in found]

    def calibrate_stage(
        self, stage: CascadeStage, reached: list[Reached], batches: Sequence[Batch]
    ) -> dict[str, Any]:
        """Set the biases of a stage, in place, and move the proposals on to the next one.

        Args:
            stage: of `stages`.
            reached: for each batch its maps, proposals of each image, and their sizes; the
                proposals are replaced.
            batches: images and targets.

        Returns:
            What was set.
        """
        drawn = [
            stage.sample(proposals, batch.targets)
            for (_, proposals, _), batch in zip(reached, batches, strict=True)
        ]
        labels, wanted, boxes = (
            torch.cat([torch.cat(getattr(sampled, name)) for sampled in drawn])
            for name in ("labels", "wanted", "boxes")
        )
        hit = labels > 0
        offsets = boxes.new_zeros(len(boxes), 4)
        offsets[hit] = stage.box_coder.encode_single(wanted[hit], boxes[hit])
        found = calibrate_box_predictor(stage.box_predictor, labels, offsets)
        for place, ((maps, _, shapes), sampled) in enumerate(zip(reached, drawn, strict=True)):
            outputs = stage.outputs(stage.box_roi_pool(maps, sampled.boxes, shapes))
            moved = stage.refined(sampled.boxes, *outputs, shapes, torch.cat(sampled.labels))
            pairs = zip(moved, sampled.proposed, strict=True)
            reached[place] = maps, [part[proposed] for part, proposed in pairs], shapes
        return found

    def worst_case_losses(self, level: Tensor, images: Tensor) -> list[Tensor]:
        """Compute the losses of all stages on as many regions as can be sampled.

        Args:
            level: the finest map [B, C, H, W].
            images: the batch [B, 3, H, W].
        """
        count, positives = len(images), int(self.regions * POSITIVE_SHARE)
        boxes, none = (
            images.new_zeros(self.regions, 4),
            torch.zeros(self.regions, dtype=torch.int64, device=images.device),
        )
        masks = torch.zeros(
            1, 1, 1, dtype=torch.uint8, device=images.device
        )  # the real ones are inputs, counted there
        sampled = Sampled(
            [boxes] * count,
            [none] * count,
            [boxes] * count,
            [none] * count,
            [positives] * count,
            [none] * count,
        )
        losses: list[Tensor] = []
        for stage in self.stages:
            losses += stage.box_losses(
                *stage.outputs(_pooled(level, count * self.regions, ROI_SIZE)), sampled
            ).values()
            if self.masks:
                logits = stage.mask_logits(_pooled(level, count * positives, MASK_ROI_SIZE))
                losses.append(_mask_loss(logits, sampled, [masks] * count))
        return losses

    def run(self, level: Tensor) -> None:
        """Run all stages on as many proposals as FLOPs are counted for (`COUNTED_PROPOSALS`)."""
        for stage in self.stages:
            stage.outputs(
                level.new_empty(COUNTED_PROPOSALS * len(level), level.shape[1], ROI_SIZE, ROI_SIZE)
            )
            if self.masks:
                stage.mask_logits(
                    level.new_empty(
                        COUNTED_MASKS * len(level), level.shape[1], MASK_ROI_SIZE, MASK_ROI_SIZE
                    )
                )


def _mask_loss(logits: Tensor, sampled: Sampled, masks: list[Tensor | None]) -> Tensor:
    """Cross-entropy on the objects' boxes, see `mask_loss`; a target without `masks` teaches
    none.
    """
    boxes, objects, labels = (
        sampled.of_objects(parts) for parts in (sampled.boxes, sampled.objects, sampled.labels)
    )
    wanted = []
    for part, index, of_image in zip(boxes, objects, masks, strict=True):
        none = part.new_zeros(1, 1, 1, dtype=torch.uint8)
        wanted.append(
            mask_targets(none, part, 0 * index)
            if of_image is None
            else mask_targets(of_image, part, index)
        )
    return mask_loss(logits, torch.cat(labels), torch.cat(wanted), sampled.positives)


def _pooled(level: Tensor, count: int, size: int) -> Tensor:
    """`count` regions of the finest level."""
    cropped: Tensor = roi_align(
        level, level.new_zeros(count, 5), (size, size), 1 / STRIDES[0], sampling_ratio=2
    )
    return cropped
