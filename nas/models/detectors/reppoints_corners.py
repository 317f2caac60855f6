"""Corner verification: which location is the corner of an object (CornerNet, Law & Deng, ECCV 2018;
RepPoints v2, Chen et al., NeurIPS 2020, section 3.2), and what boxes gain from it in evaluation
(section 3.4, joint inference).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.models.backbones.stems import norm_layer

POOLED_CHANNELS = 64


class CornerPooling(nn.Module):
    """CornerNet's prediction module (figure 7): [B, C, H, W] -> the same shape.

    One branch looks along the columns, one along the rows: of all features from here to the border,
    the largest. Convolution after the sum 1x1, as in the published RepPoints v2 (CornerNet's is
    3x3).

    Args:
        channels: of the map.
        behind: look to the lower and right border, as an upper left corner must; else to the upper
            and left one.
    """

    def __init__(self, channels: int, *, behind: bool) -> None:
        super().__init__()
        pooled = min(POOLED_CHANNELS, channels)
        self.behind = behind
        self.vertical = nn.Sequential(*_convolution(channels, pooled, 3), nn.ReLU())
        self.horizontal = nn.Sequential(*_convolution(channels, pooled, 3), nn.ReLU())
        self.joined = nn.Sequential(*_convolution(pooled, channels, 3))
        self.shortcut = nn.Sequential(*_convolution(channels, channels, 1))
        self.relu = nn.ReLU()
        self.last = nn.Sequential(*_convolution(channels, channels, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        pooled = largest_along(self.vertical(x), 2, behind=self.behind)
        pooled = pooled + largest_along(self.horizontal(x), 3, behind=self.behind)
        corners: Tensor = self.last(self.relu(self.joined(pooled) + self.shortcut(x)))
        return corners


def largest_along(x: Tensor, dim: int, *, behind: bool) -> Tensor:
    """Largest value from each position to the end of a dimension (CornerNet, Law & Deng, ECCV 2018,
    section 3.4).

    Args:
        x: any shape.
        dim: the dimension.
        behind: look towards its end; else towards its start.

    Returns:
        The shape of `x`.
    """
    if not behind:
        return torch.cummax(x, dim)[0]
    return torch.cummax(x.flip(dim), dim)[0].flip(dim)


def refine_corners(boxes: Tensor, scores: Tensor, offsets: Tensor, stride: int) -> Tensor:
    """Boxes with each corner moved to where verification finds it among the four locations around
    it.

    A box that would have no side left stays as it is; the published implementation keeps what comes
    out.

    Args:
        boxes: [R, 4], pixels, within the map.
        scores: [2, H, W], logits of upper left and lower right corners; H and W at least 2.
        offsets: [4, H, W], x and y from a location to each of the two corners, in strides.
        stride: of the map, pixels.
    """
    corners = [
        _verified(boxes[:, side : side + 2], scores[side // 2], offsets[side : side + 2], stride)
        for side in (0, 2)
    ]
    refined = torch.cat(corners, dim=1)
    return torch.where((corners[0] < corners[1]).all(dim=1, keepdim=True), refined, boxes)


def _verified(xy: Tensor, scores: Tensor, offsets: Tensor, stride: int) -> Tensor:
    """[R, 2]: the best of four locations, moved by its offset."""
    height, width = scores.shape
    _, best = F.max_pool2d(scores[None, None], 2, stride=1, return_indices=True)
    column, row = (
        (xy[:, axis] / stride).floor().long().clamp(0, size - 2)
        for axis, size in enumerate((width, height))
    )
    chosen = best[0, 0][row, column]
    below = chosen // width
    place = torch.stack([chosen - below * width, below], dim=1)
    return (place + offsets.flatten(1)[:, chosen].t()) * stride


def _convolution(in_width: int, width: int, kernel_size: int) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(in_width, width, kernel_size, padding=kernel_size // 2, bias=False)
    return convolution, norm_layer("gn", width)
