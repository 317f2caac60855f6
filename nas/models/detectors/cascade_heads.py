"""The heads of Cascade Mask R-CNN: three stages, each on what the one before made of its boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from nas.config.detections import DetectionLimits
from nas.data.dataset import Batch
from nas.models.detectors.cascade_stage import MASK_ROI_SIZE, CascadeStage, Sampled
from nas.models.detectors.faster_rcnn import COUNTED_PROPOSALS, POSITIVE_SHARE, ROI_SIZE, STRIDES
from nas.models.detectors.mask_head import averaged_masks, mask_loss, mask_targets
from nas.models.detectors.region_calibration import Reached, calibrate_box_predictor

IOUS = (0.5, 0.6, 0.7)
BOX_WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
LOSS_WEIGHTS = (1.0, 0.5, 0.25)
COUNTED_MASKS = 100  # of one image, as in the published count
MASKS_AT_ONCE = 100  # of one image


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

    def run(self, level: Tensor) -> list[Tensor]:
        """Outputs of all stages on as many proposals as FLOPs are counted for
        (`COUNTED_PROPOSALS`).
        """
        found: list[Tensor] = []
        shape = COUNTED_PROPOSALS * len(level), level.shape[1], ROI_SIZE, ROI_SIZE
        of_masks = COUNTED_MASKS * len(level), level.shape[1], MASK_ROI_SIZE, MASK_ROI_SIZE
        for stage in self.stages:
            found += stage.outputs(level.new_empty(shape))
            if self.masks:
                found.append(stage.mask_logits(level.new_empty(of_masks)))
        return found


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
