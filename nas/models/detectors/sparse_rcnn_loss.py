"""Set prediction losses (Carion et al., ECCV 2020, section 3.1; with the focal loss and weights of
Sparse R-CNN, section 3.3): every box of an image is matched with one proposal, at the least cost of
all of them together; the other proposals are background.

Weights 2 (focal), 5 (L1) and 2 (GIoU), in the cost and in the loss; focal loss with alpha 0.25 and
gamma 2; over the number of boxes (PeizeSun/SparseR-CNN, projects/SparseRCNN/sparsercnn/loss.py,
config.py). They wait for the GPU once a step, for the costs of all images and stages together.

Shapes: B images, S stages, P proposals, K classes, M boxes of an image. Targets have `boxes` [M, 4]
    and `labels` [M] from 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from nas.models.detectors.dense_head import BACKGROUND, assigned, focal_loss, giou_loss
from nas.models.detectors.normalization import Losses

CLS_WEIGHT, L1_WEIGHT, GIOU_WEIGHT = 2.0, 5.0, 2.0
ALPHA, GAMMA = 0.25, 2.0  # those of `focal_loss`
# cost of what is not a number: to be matched last, so that the loss, not the matching, reports it
NO_NUMBER = 1e9


def hungarian(costs: Sequence[Tensor]) -> Tensor:
    """The matching of least cost (Kuhn 1955, by SciPy), of each image and stage on its own.

    Args:
        costs: of each image, [S, P, M].

    Returns:
        Index of the box of each proposal, -1 for none: [B, S, P], on the device of the costs.
        min(P, M) proposals have one.
    """
    flat = torch.cat([cost.flatten() for cost in costs]).nan_to_num(nan=NO_NUMBER).cpu()
    found = torch.full((len(costs), *costs[0].shape[:2]), BACKGROUND)
    for image, of_image in enumerate(flat.split([cost.numel() for cost in costs])):
        for stage, matrix in enumerate(of_image.view(costs[image].shape)):
            proposals, boxes = (
                torch.from_numpy(index) for index in linear_sum_assignment(matrix.numpy())
            )
            found[image, stage, proposals] = boxes
    return found.to(costs[0].device)


def in_order(costs: Sequence[Tensor]) -> Tensor:
    """Match the first proposals with the boxes, as many of either as there are: what `hungarian` is
    replaced by where tensors have no values. Arguments and result are those of `hungarian`.
    """
    stages, proposals, boxes = costs[0].shape
    place = torch.arange(proposals, device=costs[0].device)
    return torch.where(place < boxes, place, BACKGROUND).repeat(len(costs), stages, 1)


def matching_cost(logits: Tensor, boxes: Tensor, target: dict[str, Tensor], size: Tensor) -> Tensor:
    """Cost of matching each proposal with each box (section 3.2, "Set prediction loss"): [..., P,
    M].

    Args:
        logits: [..., P, K].
        boxes: [..., P, 4], pixels.
        target: of the image: `boxes` [M, 4] and `labels` [M] from 1.
        size: [4], width, height, width, height of the image in pixels.
    """
    x = logits[..., target["labels"] - 1]
    probability = x.sigmoid()
    positive = ALPHA * (1 - probability) ** GAMMA * F.softplus(-x)
    negative = (1 - ALPHA) * probability**GAMMA * F.softplus(x)
    l1 = torch.cdist(boxes / size, target["boxes"] / size, p=1)
    giou = giou_loss(boxes[..., None, :], target["boxes"])
    return CLS_WEIGHT * (positive - negative) + L1_WEIGHT * l1 + GIOU_WEIGHT * giou


def set_losses(
    logits: Tensor,
    boxes: Tensor,
    targets: Sequence[dict[str, Tensor]],
    sizes: Tensor,
    match: Callable[[Sequence[Tensor]], Tensor] = hungarian,
) -> Losses:
    """Sum focal, L1 and GIoU loss, weighted, over the stages; each is to be divided by the number
    of boxes.

    Args:
        logits: [B, S, P, K].
        boxes: [B, S, P, 4], pixels.
        targets: of each image.
        sizes: [B, 4], width, height, width, height of each image in pixels, in which L1 is
            measured.
        match: from costs to indices of boxes, as `hungarian`.
    """
    with torch.no_grad():
        found = match(
            [
                matching_cost(*of_image)
                for of_image in zip(logits, boxes, targets, sizes, strict=True)
            ]
        )
    logits, boxes = logits.flatten(1, 2), boxes.flatten(1, 2)  # [B, S P, ...]
    labels, truth = assigned(targets, list(found.flatten(1)), torch.zeros_like(boxes[0]))
    positive = labels != BACKGROUND
    matched = torch.where(positive[..., None], boxes, truth)  # nothing else has a gradient
    l1 = ((matched - truth) / sizes[:, None]).abs().sum()
    giou = (giou_loss(matched, truth) * positive).sum()
    return {
        "classification": CLS_WEIGHT * focal_loss(logits, labels),
        "bbox_l1": L1_WEIGHT * l1,
        "bbox_giou": GIOU_WEIGHT * giou,
    }
