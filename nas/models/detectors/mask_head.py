"""What mask heads learn (He et al., ICCV 2017, section 3): a grid of cells over each box, each of
the object or not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

MASK_SIZE = 28  # cells along each side of a box


def mask_targets(masks: Tensor, boxes: Tensor, objects: Tensor, size: int = MASK_SIZE) -> Tensor:
    """The mask of each box's object, on a grid of cells over the box: 1 where the mask is at least
    a half at the cell's centre, between pixels by bilinear interpolation; outside the image 0.

    That is RoIAlign with one sample a cell, from 8-bit masks: torchvision's function would make
    floats of all of them first.

    Args:
        masks: [N, H, W] of 0 and 1, uint8.
        boxes: [P, 4], pixels.
        objects: [P], indices of masks.
        size: cells along each side.

    Returns:
        [P, size, size] of 0 and 1, float.
    """
    cells = (torch.arange(size, device=boxes.device) + 0.5) / size
    x = (
        boxes[:, :1] + (boxes[:, 2:3] - boxes[:, :1]) * cells - 0.5
    )  # [P, size]; the centre of the first pixel is 0
    y = boxes[:, 1:2] + (boxes[:, 3:4] - boxes[:, 1:2]) * cells - 0.5
    left, top = x.floor(), y.floor()
    values: Tensor | float = 0.0
    for column, across in ((left, 1 - (x - left)), (left + 1, x - left)):
        for row, along in ((top, 1 - (y - top)), (top + 1, y - top)):
            values = (
                values
                + _pixels(masks, objects, row, column) * along[:, :, None] * across[:, None, :]
            )
    return torch.as_tensor(values >= 0.5).float()


def _pixels(masks: Tensor, objects: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """[P, R, C] at rows [P, R] and columns [P, C] of masks, 0 outside the image."""
    height, width = masks.shape[1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
        :, None, :
    ]
    row, column = rows.clamp(0, height - 1).long(), columns.clamp(0, width - 1).long()
    return masks[objects[:, None, None], row[:, :, None], column[:, None, :]] * inside


def mask_loss(logits: Tensor, labels: Tensor, wanted: Tensor, per_image: Sequence[int]) -> Tensor:
    """Sum over images the binary cross-entropy of the masks of the right classes, each the mean
    over cells and the boxes of an image. A box whose target is empty teaches nothing: its object
    came without a mask.

    Args:
        logits: [P, K, M, M], one mask a class.
        labels: [P] from 1.
        wanted: [P, M, M] of 0 and 1.
        per_image: how many of the P boxes each image has.
    """
    own = logits[torch.arange(len(labels), device=labels.device), labels - 1].float()
    each = F.binary_cross_entropy_with_logits(own, wanted, reduction="none").mean(dim=(1, 2))
    counts = wanted.flatten(1).any(dim=1).float().split(list(per_image))
    weights = torch.cat([part / part.sum().clamp(min=1) for part in counts])
    return (each * weights).sum()


def averaged_masks(logits: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Average the mask probabilities of several heads.

    Args:
        logits: of each head [D, K, S, S].
        labels: [D], from 1: the class whose mask counts.

    Returns:
        [D, S, S], 0 to 1.
    """
    index = torch.arange(labels.shape[0], device=labels.device)
    return torch.stack([each[index, labels - 1].float().sigmoid() for each in logits]).mean(dim=0)
