"""The losses of RepPoints v2 (Chen et al., NeurIPS 2020, section 3; weights and the choice of GIoU
are the published configuration's) without a step that waits for the GPU: positives are masked,
never counted out or indexed.

Sums are to be divided by the number of positives of the batch; the published implementation counts
at least one for every image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.models.detectors.atss_loss import match
from nas.models.detectors.dense_head import BACKGROUND, assigned, focal_loss, giou_loss
from nas.models.detectors.normalization import Losses
from nas.models.detectors.reppoints_targets import (
    CornerTargets,
    Levels,
    corner_targets,
    foreground_weights,
    initial_match,
)

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
    object_scale: float = 1.0,
) -> tuple[Losses, Losses]:
    """Sum the losses of classes, initial and refined boxes, corners and foreground.

    Args:
        outputs: what `RepPointsHead` gives.
        boxes: initial and refined, [B, N, 4] each, pixels.
        points: [N, 2], x and y of the locations, pixels.
        levels: (height, width, stride) of each level.
        targets: of each image, `boxes` [M, 4] and `labels` [M] from 1.
        object_scale: of the sizes that a level takes, as a multiple of the published ones.

    Returns:
        Sums, and what they are to be divided by, by name of the loss; of corners one of each kind
        [2], of the foreground one of what is covered and one of the rest [2].
    """
    first = [initial_match(points, levels, target["boxes"], object_scale) for target in targets]
    regressed, numbers = _regression_losses(
        outputs["logits"], boxes, points, levels, targets, first
    )
    verified, counts = _verification_losses(outputs, points, levels, targets)
    return {**regressed, **verified}, {**numbers, **counts}


def _regression_losses(
    logits: Tensor,
    boxes: tuple[Tensor, Tensor],
    points: Tensor,
    levels: Levels,
    targets: Sequence[dict[str, Tensor]],
    first: Sequence[Tensor],
) -> tuple[Losses, Losses]:
    """Classes and refined boxes go by ATSS on the initial boxes, as in the published
    configuration.
    """
    initial, refined = boxes
    counts = [height * width for height, width, _ in levels]
    second = [
        match(each, counts, target["boxes"])
        for each, target in zip(initial.detach(), targets, strict=True)
    ]
    nowhere = torch.cat([points, points], dim=1)
    first_labels, first_boxes = assigned(targets, first, nowhere)
    labels, second_boxes = assigned(targets, second, nowhere)
    early, late = first_labels != BACKGROUND, labels != BACKGROUND
    sums = {
        "classification": focal_loss(logits, labels),
        "initial_boxes": INITIAL_WEIGHT * _box_loss(initial, first_boxes, early),
        "refined_boxes": REFINED_WEIGHT * _box_loss(refined, second_boxes, late),
    }
    return sums, {**dict.fromkeys(sums, late.sum()), "initial_boxes": early.sum()}


def _verification_losses(
    outputs: dict[str, Tensor], points: Tensor, levels: Levels, targets: Sequence[dict[str, Tensor]]
) -> tuple[Losses, Losses]:
    num_classes, stride = outputs["foreground"].shape[2], levels[0][2]
    found = [corner_targets(points, levels, target["boxes"]) for target in targets]
    corners = CornerTargets(*map(torch.stack, zip(*found, strict=True)))
    heat, offsets = corner_losses(outputs["corners"].float(), corners)
    weights = torch.stack(
        [
            foreground_weights(points, t["boxes"], t["labels"] - 1, num_classes, stride)
            for t in targets
        ]
    )
    sums = {
        "corners": HEAT_WEIGHT * heat / 2,  # the mean of both kinds
        "corner_offsets": OFFSET_WEIGHT * offsets / 2,
        "foreground": FOREGROUND_WEIGHT * foreground_loss(outputs["foreground"].float(), weights),
    }
    here, covered = corners.here.sum(dim=(0, 1)), torch.stack([weights.sum(), (weights > 0).sum()])
    return sums, {"corners": here, "corner_offsets": here, "foreground": covered}


def corner_losses(corners: Tensor, targets: CornerTargets) -> tuple[Tensor, Tensor]:
    """Sum CornerNet's focal loss (equation 1) and the smooth L1 loss of offsets, each for upper
    left and lower right corners: [2], [2]. They are to be divided by the number of corners of their
    kind.

    Args:
        corners: [B, N, 6], logits of both and offsets to both.
        targets: with a leading dimension B.
    """
    logits, offsets = corners[..., :2], corners[..., 2:].unflatten(2, (2, 2))
    probability = logits.sigmoid()
    hard, easy = HEAT_POWERS
    hits = -F.logsigmoid(logits) * (1 - probability) ** hard
    misses = -F.logsigmoid(-logits) * probability**hard * (1 - targets.heat) ** easy
    heat = torch.where(targets.here, hits, misses).sum(dim=(0, 1))
    distance = F.smooth_l1_loss(offsets, targets.offsets, beta=OFFSET_BETA, reduction="none").sum(
        dim=3
    )
    return heat, (distance * targets.here).sum(dim=(0, 1))


def foreground_loss(logits: Tensor, weights: Tensor) -> Tensor:
    """Sum focal loss where every object has the same weight (RepPoints v2, section 3.2): of what is
    covered, to be divided by the sum of its weights, and of the rest, by the number of what is
    covered: [2].

    Args:
        logits: [B, N, K].
        weights: [B, N, K], 0 where a class covers nothing.
    """
    covered = weights > 0
    probability = logits.sigmoid()
    hits = -F.logsigmoid(logits) * (1 - probability) ** FOCAL_GAMMA * FOCAL_ALPHA * weights
    misses = -F.logsigmoid(-logits) * probability**FOCAL_GAMMA * (1 - FOCAL_ALPHA) * ~covered
    return torch.stack([hits.sum(), misses.sum()])


def _box_loss(predicted: Tensor, wanted: Tensor, positive: Tensor) -> Tensor:
    """Sum the GIoU loss over positives."""
    losses = giou_loss(torch.where(positive[..., None], predicted, wanted), wanted)
    return (losses * positive).sum()
