"""The losses of RepPoints v2 (Chen et al., NeurIPS 2020, section 3; weights and the choice of GIoU
are the published configuration's) without a step that waits for the GPU: positives are masked,
never counted out or indexed.

Sums are over the number of positives of the batch, averaged over the processes that train together;
the published implementation counts at least one for every image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.models.detectors.atss_loss import match
from nas.models.detectors.dense_head import BACKGROUND, assigned, focal_loss, giou_loss
from nas.models.detectors.reppoints_targets import (
    CornerTargets,
    Levels,
    corner_targets,
    foreground_weights,
    initial_match,
)
from nas.utils.distributed import all_reduce_mean

INITIAL_WEIGHT, REFINED_WEIGHT = 1.0, 2.0  # of the GIoU losses
HEAT_WEIGHT, OFFSET_WEIGHT = 0.25, 1.0
FOREGROUND_WEIGHT = 0.1
HEAT_POWERS = (2, 4)  # alpha and beta of CornerNet, equation 1
OFFSET_BETA = 1 / 9  # where the smooth L1 loss becomes linear
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2


def reppoints_losses(
    outputs: dict[str, Tensor],
    boxes: tuple[Tensor, Tensor],
    points: Tensor,
    levels: Levels,
    targets: Sequence[dict[str, Tensor]],
) -> dict[str, Tensor]:
    """Compute the losses of classes, initial and refined boxes, corners and foreground.

    Args:
        outputs: what `RepPointsHead` gives.
        boxes: initial and refined, [B, N, 4] each, pixels.
        points: [N, 2], x and y of the locations, pixels.
        levels: (height, width, stride) of each level.
        targets: of each image, `boxes` [M, 4] and `labels` [M] from 1.

    Returns:
        Scalars by name, averaged over the processes that train together.
    """
    regressed = _regression_losses(outputs["logits"], boxes, points, levels, targets)
    return {**regressed, **_verification_losses(outputs, points, levels, targets)}


def _regression_losses(
    logits: Tensor,
    boxes: tuple[Tensor, Tensor],
    points: Tensor,
    levels: Levels,
    targets: Sequence[dict[str, Tensor]],
) -> dict[str, Tensor]:
    """Classes and refined boxes go by ATSS on the initial boxes, as in the published
    configuration.
    """
    initial, refined = boxes
    counts = [height * width for height, width, _ in levels]
    first = [initial_match(points, levels, target["boxes"]) for target in targets]
    second = [
        match(each, counts, target["boxes"])
        for each, target in zip(initial.detach(), targets, strict=True)
    ]
    nowhere = torch.cat([points, points], dim=1)
    first_labels, first_boxes = assigned(targets, first, nowhere)
    labels, second_boxes = assigned(targets, second, nowhere)
    return {
        "classification": focal_loss(logits, labels) / _number(labels != BACKGROUND),
        "initial_boxes": INITIAL_WEIGHT
        * _box_loss(initial, first_boxes, first_labels != BACKGROUND),
        "refined_boxes": REFINED_WEIGHT * _box_loss(refined, second_boxes, labels != BACKGROUND),
    }


def _verification_losses(
    outputs: dict[str, Tensor], points: Tensor, levels: Levels, targets: Sequence[dict[str, Tensor]]
) -> dict[str, Tensor]:
    num_classes, stride = outputs["foreground"].shape[2], levels[0][2]
    corners = [corner_targets(points, levels, target["boxes"]) for target in targets]
    heat, offsets = corner_losses(
        outputs["corners"].float(), CornerTargets(*map(torch.stack, zip(*corners, strict=True)))
    )
    weights = [
        foreground_weights(points, t["boxes"], t["labels"] - 1, num_classes, stride)
        for t in targets
    ]
    return {
        "corners": HEAT_WEIGHT * heat,
        "corner_offsets": OFFSET_WEIGHT * offsets,
        "foreground": FOREGROUND_WEIGHT
        * foreground_loss(outputs["foreground"].float(), torch.stack(weights)),
    }


def corner_losses(corners: Tensor, targets: CornerTargets) -> tuple[Tensor, Tensor]:
    """CornerNet's focal loss (equation 1) and the smooth L1 loss of offsets, each over the number
    of corners of its kind, the mean of upper left and lower right ones.

    Args:
        corners: [B, N, 6], logits of both and offsets to both.
        targets: with a leading dimension B.
    """
    logits, offsets = corners[..., :2], corners[..., 2:].unflatten(2, (2, 2))
    number = _number(targets.here, dim=(0, 1))  # [2]
    probability = logits.sigmoid()
    hard, easy = HEAT_POWERS
    hits = -F.logsigmoid(logits) * (1 - probability) ** hard
    misses = -F.logsigmoid(-logits) * probability**hard * (1 - targets.heat) ** easy
    heat = torch.where(targets.here, hits, misses).sum(dim=(0, 1)) / number
    distance = F.smooth_l1_loss(offsets, targets.offsets, beta=OFFSET_BETA, reduction="none").sum(
        dim=3
    )
    return heat.mean(), ((distance * targets.here).sum(dim=(0, 1)) / number).mean()


def foreground_loss(logits: Tensor, weights: Tensor) -> Tensor:
    """Focal loss where every object has the same weight (RepPoints v2, section 3.2): of what is
    covered over the sum of its weights, of the rest over the number of what is covered.

    Args:
        logits: [B, N, K].
        weights: [B, N, K], 0 where a class covers nothing.
    """
    covered = weights > 0
    probability = logits.sigmoid()
    hits = -F.logsigmoid(logits) * (1 - probability) ** FOCAL_GAMMA * FOCAL_ALPHA * weights
    misses = -F.logsigmoid(-logits) * probability**FOCAL_GAMMA * (1 - FOCAL_ALPHA) * ~covered
    total = all_reduce_mean(weights.sum())
    return hits.sum() / torch.where(total > 0, total, 1) + misses.sum() / _number(covered)


def _box_loss(predicted: Tensor, wanted: Tensor, positive: Tensor) -> Tensor:
    """GIoU loss over the number of positives."""
    losses = giou_loss(torch.where(positive[..., None], predicted, wanted), wanted)
    return (losses * positive).sum() / _number(positive)


def _number(positive: Tensor, dim: tuple[int, ...] | None = None) -> Tensor:
    """Number of positives, at least 1, averaged over the processes that train together."""
    return all_reduce_mean(positive.sum(dim).float()).clamp(min=1)
