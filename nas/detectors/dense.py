"""What detectors share that predict at every location of their pyramid: towers, and losses that mask instead of indexing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

BACKGROUND = -1  # among indices of boxes and labels from 0
PRIOR = 0.01  # probability of every class at the start (focal loss, Lin et al. 2017, section 4.1)
TOWER_DEPTH = 4


class Tower(nn.Sequential):
    """Four times 3x3 convolution, group norm, ReLU."""

    def __init__(self, channels: int) -> None:
        layers: list[nn.Module] = []
        for _ in range(TOWER_DEPTH):
            layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.GroupNorm(32, channels), nn.ReLU()]
        super().__init__(*layers)


def picked(values: Tensor, index: Tensor, fill: int) -> Tensor:
    """Rows of `values` by index, `fill` where it is -1."""
    if not len(values):
        return values.new_full((len(index), *values.shape[1:]), fill)
    chosen = values[index.clamp(min=0)]
    return torch.where((index >= 0).view(-1, *[1] * (values.dim() - 1)), chosen, fill)


def giou_loss(boxes: Tensor, others: Tensor, eps: float = 1e-7) -> Tensor:
    """1 - GIoU (Rezatofighi et al., CVPR 2019) of pairs of boxes [..., 4]. torchvision's indexes by a mask, which waits."""

    def extent(low: Tensor, high: Tensor) -> Tensor:
        return (high - low).clamp(min=0).prod(dim=-1)

    low, high = (boxes[..., :2], others[..., :2]), (boxes[..., 2:], others[..., 2:])
    shared = extent(torch.maximum(*low), torch.minimum(*high))
    union = extent(low[0], high[0]) + extent(low[1], high[1]) - shared
    hull = extent(torch.minimum(*low), torch.maximum(*high))
    return 1 - shared / (union + eps) + (hull - union) / (hull + eps)


def centerness_of(points: Tensor, boxes: Tensor) -> Tensor:
    """Equation 3 of FCOS (Tian et al., ICCV 2019): [B, N] from points [N, 2] inside boxes [B, N, 4]."""
    before, behind = points - boxes[..., :2], boxes[..., 2:] - points
    return (torch.minimum(before, behind) / torch.maximum(before, behind)).prod(dim=2).clamp(min=0).sqrt()
