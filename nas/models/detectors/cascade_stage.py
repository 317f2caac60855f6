"""One stage of a cascade (Cai & Vasconcelos, CVPR 2018): what it samples, predicts, learns, and
hands on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import clip_boxes_to_image

from nas.config.detections import DetectionLimits
from nas.models.detectors.dense_head import giou_loss
from nas.models.detectors.faster_rcnn import POSITIVE_SHARE, ROI_SIZE, BoxPredictor, PyramidRoIAlign
from nas.models.detectors.matching import PartwiseRegions
from nas.models.detectors.region_losses import region_weights

CONVOLUTIONS = 4  # of a box head and of a mask head
MASK_ROI_SIZE = 14
GIOU_WEIGHT = 10.0


@dataclass(frozen=True)
class Sampled:
    """The boxes of a batch that a stage learns from, image by image, those of objects first.

    Args:
        boxes: of each image [S, 4].
        labels: of each image [S], 0 is the background.
        wanted: of each image [S, 4], the object that a box overlaps most; zeros where there is
            none.
        objects: of each image [S], its index.
        positives: of each image, how many are of objects.
        proposed: of each image [S], false for the objects' own boxes.
    """

    boxes: list[Tensor]
    labels: list[Tensor]
    wanted: list[Tensor]
    objects: list[Tensor]
    positives: list[int]
    proposed: list[Tensor]

    def of_objects(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Select the positives of values that are given image by image, [S, ...] each."""
        return [part[:count] for part, count in zip(parts, self.positives, strict=True)]


class CascadeStage(PartwiseRegions):
    """torchvision's box and mask heads with the layers of Swin's published configuration: four 3x3
    convolutions with batch norm and one fully connected layer, a box for each class; four 3x3
    convolutions and a 2x2 transposed one, a mask for each class.

    There batch norms are synchronised; here they are where the layout's norm is `syncbn`.

    Args:
        channels: of the pyramid and of all convolutions.
        num_classes: without the background.
        hidden: width of the fully connected layer.
        regions: boxes of one image that it learns from.
        iou: from which a box is of an object.
        box_weights: what offsets of x, y, width and height are divided by.
        masks: whether there is a mask head.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        hidden: int,
        regions: int,
        iou: float,
        box_weights: tuple[float, ...],
        masks: bool,
    ) -> None:
        widths = [channels] * CONVOLUTIONS
        super().__init__(
            PyramidRoIAlign(),
            FastRCNNConvFCHead(
                (channels, ROI_SIZE, ROI_SIZE), widths, [hidden], norm_layer=nn.BatchNorm2d
            ),
            BoxPredictor(hidden, num_classes),
            fg_iou_thresh=iou,
            bg_iou_thresh=iou,
            batch_size_per_image=regions,
            positive_fraction=POSITIVE_SHARE,
            bbox_reg_weights=box_weights,
            score_thresh=0.0,  # these three are of the last stage alone, see `limit`
            nms_thresh=1.0,
            detections_per_img=0,
            mask_roi_pool=PyramidRoIAlign(MASK_ROI_SIZE) if masks else None,
            mask_head=MaskRCNNHeads(channels, widths, dilation=1) if masks else None,
            mask_predictor=MaskRCNNPredictor(channels, channels, num_classes) if masks else None,
        )

    def limit(self, limits: DetectionLimits) -> None:
        """Set which detections a last stage gives."""
        self.score_thresh, self.nms_thresh = limits.score, limits.nms_iou
        self.detections_per_img = limits.count

    @torch.no_grad()
    def sample(self, proposals: list[Tensor], targets: Sequence[dict[str, Tensor]]) -> Sampled:
        """Draw the regions that a stage learns from, for each image.

        They come from its proposals [N, 4] and its objects' own boxes: `regions` at most, a quarter
        of them on objects.
        """
        truth = [target["boxes"].float() for target in targets]
        candidates = self.add_gt_proposals(proposals, truth)
        objects, labels = self.assign_targets_to_proposals(
            candidates, truth, [target["labels"] for target in targets]
        )
        places = [
            [torch.where(chosen)[0] for chosen in both]
            for both in zip(*self.fg_bg_sampler(labels), strict=True)
        ]
        chosen = [torch.cat(both) for both in places]
        wanted = [boxes if len(boxes) else boxes.new_zeros(1, 4) for boxes in truth]
        return Sampled(
            boxes=[boxes[index] for boxes, index in zip(candidates, chosen, strict=True)],
            labels=[each[index] for each, index in zip(labels, chosen, strict=True)],
            wanted=[
                boxes[each[index]]
                for boxes, each, index in zip(wanted, objects, chosen, strict=True)
            ],
            objects=[each[index] for each, index in zip(objects, chosen, strict=True)],
            positives=[len(positive) for positive, _ in places],
            proposed=[index < len(boxes) for boxes, index in zip(proposals, chosen, strict=True)],
        )

    def outputs(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits [R, 1 + K] and box offsets [R, 4 (1 + K)] of regions [R, C, 7, 7]."""
        logits, offsets = self.box_predictor(self.box_head(regions))
        return logits.float(), offsets.float()

    def mask_logits(self, regions: Tensor) -> Tensor:
        """Compute mask logits [R, K, 28, 28] from regions [R, C, 14, 14]."""
        logits: Tensor = self.mask_predictor(self.mask_head(regions))
        return logits

    def moved(self, boxes: Tensor, offsets: Tensor, classes: Tensor) -> Tensor:
        """Move boxes by the offsets of one class each; class 0, the background, moves nothing.

        Args:
            boxes: [R, 4], pixels.
            offsets: [R, 4 (1 + K)].
            classes: [R].

        Returns:
            [R, 4], pixels.
        """
        index = torch.arange(boxes.shape[0], device=boxes.device)
        decoded: Tensor = self.box_coder.decode_single(
            offsets.unflatten(1, (-1, 4))[index, classes], boxes
        )
        return decoded

    def box_losses(self, logits: Tensor, offsets: Tensor, sampled: Sampled) -> dict[str, Tensor]:
        """Sum cross-entropy over images, each the mean over an image's boxes, and GIoU of those of
        objects, moved, in the same way (Swin's configuration has smooth L1 replaced so).
        """
        boxes, labels, wanted = (
            torch.cat(parts) for parts in (sampled.boxes, sampled.labels, sampled.wanted)
        )
        weights, positive = region_weights(sampled.labels), labels > 0
        moved = self.moved(boxes, offsets, labels)
        giou = giou_loss(torch.where(positive[:, None], moved, wanted), wanted) * positive
        return {
            "classifier": (F.cross_entropy(logits, labels, reduction="none") * weights).sum(),
            "box_reg": GIOU_WEIGHT * (giou * weights).sum(),
        }

    @torch.no_grad()
    def refined(
        self,
        boxes: list[Tensor],
        logits: Tensor,
        offsets: Tensor,
        shapes: list[tuple[int, int]],
        labels: Tensor | None = None,
    ) -> list[Tensor]:
        """Boxes of each image moved by the offsets of their class, and cut at its border: the class
        in `labels` [R], where that is known and not the background, else the likeliest.
        """
        classes = logits[:, 1:].argmax(dim=1) + 1
        if labels is not None:
            classes = torch.where(labels > 0, labels, classes)
        moved = self.moved(torch.cat(boxes), offsets, classes).split([len(part) for part in boxes])
        return [clip_boxes_to_image(part, shape) for part, shape in zip(moved, shapes, strict=True)]
