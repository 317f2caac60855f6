"""FCOS's targets and losses (Tian et al., ICCV 2019, section 3.2; with centre sampling, arXiv
1904.01355v5) without a step that waits for the GPU: positives are masked, never counted out or
indexed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.models.detectors.dense_head import (
    BACKGROUND,
    assigned,
    centerness_of,
    centers_of,
    focal_loss,
    giou_loss,
)
from nas.models.detectors.normalization import Losses

CENTER_RADIUS = 1.5  # in strides
SCALE_RANGE = (
    4,
    8,
    # of the largest distance to a side, in strides: the paper's 64 to 128 pixels at stride 16, and
    # so on
)


def fcos_losses(
    outputs: dict[str, Tensor],
    points: Tensor,
    strides: Tensor,
    targets: Sequence[dict[str, Tensor]],
    ends: tuple[int, int],
    object_scale: float = 1.0,
) -> tuple[Losses, Losses]:
    """Sum focal loss, GIoU loss and centerness, and count the positives, which each is to be
    divided by.

    Args:
        outputs: `cls_logits` [B, N, K], `bbox_regression` [B, N, 4] (distances to the sides, in
            strides), `bbox_ctrness` [B, N, 1].
        points: [N, 2], x and y of the locations of all levels, pixels.
        strides: [N], of their levels, pixels.
        targets: of each image, `boxes` [M, 4] and `labels` [M] from 1.
        ends: how many of the locations are of the first level, which takes all smaller objects, and
            of the last, which takes all larger ones.
        object_scale: of the sizes that a level takes, as a multiple of `SCALE_RANGE`.

    Returns:
        Sums and counts by name of the loss.
    """
    matched = [match(points, strides, target["boxes"], ends, object_scale) for target in targets]
    around = torch.cat([points - strides[:, None], points + strides[:, None]], dim=1)
    labels, boxes = assigned(targets, matched, around)
    positive = labels != BACKGROUND  # [B, N]

    distances = outputs["bbox_regression"].float() * strides[:, None]
    predicted = torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=2)
    giou = giou_loss(torch.where(positive[..., None], predicted, boxes), boxes) * positive

    wanted = centerness_of(points, boxes)
    centerness = F.binary_cross_entropy_with_logits(
        outputs["bbox_ctrness"].squeeze(2).float(), wanted, reduction="none"
    )
    sums = {
        "classification": focal_loss(outputs["cls_logits"], labels),
        "bbox_regression": giou.sum(),
        "bbox_ctrness": (centerness * positive).sum(),
    }
    return sums, dict.fromkeys(sums, positive.sum())


def match(
    points: Tensor,
    strides: Tensor,
    boxes: Tensor,
    ends: tuple[int, int],
    object_scale: float = 1.0,
) -> Tensor:
    """Index of the box that each location is to predict, -1 for none: [N], from points [N, 2],
    strides [N], boxes [M, 4].

    A location takes the smallest box that it lies in, near whose centre it lies, and whose size is
    of its level.
    """
    if not len(boxes):
        return torch.full((len(points),), BACKGROUND, dtype=torch.int64, device=points.device)
    near = (points[:, None] - centers_of(boxes)).abs().amax(dim=2) < CENTER_RADIUS * strides[
        :, None
    ]
    sides = torch.cat(
        [points[:, None] - boxes[:, :2], boxes[:, 2:] - points[:, None]], dim=2
    )  # [N, M, 4]
    low, high = (strides * (limit * object_scale) for limit in SCALE_RANGE)
    low[: ends[0]] = 0
    high[-ends[1] :] = torch.inf
    largest = sides.amax(dim=2)
    fits = near & (sides.amin(dim=2) > 0) & (largest > low[:, None]) & (largest < high[:, None])
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    smallest, index = torch.where(fits, area, torch.inf).min(dim=1)
    return torch.where(smallest.isfinite(), index, BACKGROUND)
