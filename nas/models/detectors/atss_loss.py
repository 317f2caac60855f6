"""ATSS's targets and losses (Zhang et al., CVPR 2020, Algorithm 1) without a step that waits for
the GPU: positives are masked, never counted out or indexed.

What the paper leaves open is as in its authors' code (github.com/sfzhang15/ATSS) and in
mmdetection's: the deviation of the overlaps is the unbiased one, an anchor's centre counts as
inside a box from 0.01 pixels on, boxes are coded with deviations of 0.1 and 0.2, the GIoU loss
weighs 2 and is averaged with the centerness as weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from nas.models.detectors.dense_head import (
    BACKGROUND,
    assigned,
    centerness_of,
    centers_of,
    focal_loss,
    giou_loss,
)
from nas.models.detectors.normalization import Losses

NEAREST = 9  # k, candidates of each level
INSIDE = 0.01  # pixels
GIOU_WEIGHT = 2.0
SHIFT_STD, SIZE_STD = 0.1, 0.2  # of deltas
MAX_LOG_SIZE = math.log(
    1000 / 16
)  # of a box in sides of its anchor, so that exp stays finite; torchvision's and mmdetection's


def atss_losses(
    outputs: dict[str, Tensor],
    anchors: Tensor,
    counts: Sequence[int],
    targets: Sequence[dict[str, Tensor]],
) -> tuple[Losses, Losses]:
    """Sum focal loss and centerness, which are to be divided by the number of positives, and GIoU
    loss, by the sum of their centerness; both at least 1 (as in mmdetection).

    Args:
        outputs: `cls_logits` [B, N, K], `bbox_regression` [B, N, 4] (deltas, see `decode_boxes`),
            `bbox_ctrness` [B, N, 1].
        anchors: [N, 4], pixels, of all levels.
        counts: how many of them each level has.
        targets: of each image, `boxes` [M, 4] and `labels` [M] from 1.

    Returns:
        Sums and counts by name of the loss.
    """
    matched = [match(anchors, counts, target["boxes"]) for target in targets]
    labels, boxes = assigned(targets, matched, anchors)
    positive = (labels != BACKGROUND).float()  # [B, N]
    wanted = centerness_of(centers_of(anchors), boxes) * positive

    predicted = decode_boxes(outputs["bbox_regression"].float(), anchors)
    giou = giou_loss(torch.where(positive[..., None] > 0, predicted, boxes), boxes) * wanted
    centerness = outputs["bbox_ctrness"].squeeze(2).float()
    sums = {
        "classification": focal_loss(outputs["cls_logits"], labels),
        "bbox_regression": GIOU_WEIGHT * giou.sum(),
        "bbox_ctrness": F.binary_cross_entropy_with_logits(
            centerness, wanted, positive, reduction="sum"
        ),
    }
    return sums, {**dict.fromkeys(sums, positive.sum()), "bbox_regression": wanted.sum()}


def decode_boxes(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Boxes [..., N, 4] from deltas [..., N, 4] on anchors [N, 4]: Faster R-CNN's coding (Ren et
    al. 2015, equation 2).

    The same as torchvision's `BoxCoder` with weights 10, 10, 5, 5, which makes constants on the
    device and waits for them.
    """
    sides = anchors[:, 2:] - anchors[:, :2]
    centers = centers_of(anchors) + deltas[..., :2] * SHIFT_STD * sides
    halves = (deltas[..., 2:] * SIZE_STD).clamp(max=MAX_LOG_SIZE).exp() * sides / 2
    return torch.cat([centers - halves, centers + halves], dim=-1)


def encode_boxes(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Deltas [N, 4] of boxes [N, 4] on anchors [N, 4], the inverse of `decode_boxes`."""
    sides = anchors[:, 2:] - anchors[:, :2]
    shifts = (centers_of(boxes) - centers_of(anchors)) / sides / SHIFT_STD
    sizes = ((boxes[:, 2:] - boxes[:, :2]) / sides).log() / SIZE_STD
    return torch.cat([shifts, sizes], dim=1)


def match(anchors: Tensor, counts: Sequence[int], boxes: Tensor) -> Tensor:
    """Index of the box that each location is to predict, -1 for none: [N], from anchors [N, 4],
    boxes [M, 4].

    Candidates of a box are the `NEAREST` anchors of each level by their centres, the first of those
    equally near. Taken are those that overlap the box by no less than the mean of all candidates'
    overlaps and their deviation together, and whose centre lies in it. A location taken by several
    boxes goes to the one with the largest overlap, the first of equals.
    """
    if not len(boxes):
        return torch.full((len(anchors),), BACKGROUND, dtype=torch.int64, device=anchors.device)
    points = centers_of(anchors)
    overlap = box_iou(boxes, anchors)  # [M, N]
    candidates = _nearest(points, counts, centers_of(boxes))
    overlaps = overlap.gather(1, candidates)
    enough = overlaps >= overlaps.mean(dim=1, keepdim=True) + overlaps.std(dim=1, keepdim=True)
    taken = torch.zeros_like(overlap, dtype=torch.bool).scatter(1, candidates, enough)
    inside = (
        torch.cat([points - boxes[:, None, :2], boxes[:, None, 2:] - points], dim=2).amin(dim=2)
        > INSIDE
    )
    largest, index = torch.where(taken & inside, overlap, -1).max(dim=0)
    return torch.where(largest >= 0, index, BACKGROUND)


def _nearest(points: Tensor, counts: Sequence[int], centers: Tensor) -> Tensor:
    """Indices [M, L k] of the points [N, 2] of each level that are nearest to centers [M, 2]; fewer
    where a level has fewer.

    Sorted, because what `topk` takes of equal distances differs by device.
    """
    found, start = [], 0
    for level in points.split(list(counts)):
        distances = (level - centers[:, None]).square().sum(dim=2)
        found.append(distances.sort(dim=1, stable=True).indices[:, :NEAREST] + start)
        start += len(level)
    return torch.cat(found, dim=1)
