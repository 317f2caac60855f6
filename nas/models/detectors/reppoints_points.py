"""From point sets to boxes (RepPoints, Yang et al., ICCV 2019, section 3.1), and the points that
deformable convolutions take.

A point set is [..., 18]: y and x of nine points, from their location, in strides: what
`deform_conv2d` calls offsets, but for the kernel's own grid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

KERNEL = 3
POINTS = KERNEL**2
MOMENT_MULTIPLIER = 0.01  # of the gradient that reaches the moment transform's scales


class MomentTransform(nn.Module):
    """Makes a box of a point set by its moments (RepPoints, Yang et al., ICCV 2019, section 3.2):
    the centre is the mean of the points, the half sides are their standard deviation times a
    learned factor for x and one for y.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(2))

    def forward(self, points: Tensor) -> Tensor:
        """Turn point sets [..., 18] into boxes [..., 4]: x1, y1, x2, y2 from the location, in
        strides.
        """
        xy = _xy(points)
        log_scale = (
            MOMENT_MULTIPLIER * self.log_scale + (1 - MOMENT_MULTIPLIER) * self.log_scale.detach()
        )
        center, half = xy.mean(dim=-2), xy.std(dim=-2) * log_scale.exp()
        return torch.cat([center - half, center + half], dim=-1)


class CornerTransform(nn.Module):
    """Makes a box of a point set by its first two points, opposite corners (RepPoints v2, section
    3.4).

    In the paper the first one is the upper left; here whichever is, because the GIoU of a box
    turned inside out has no gradient.
    """

    def forward(self, points: Tensor) -> Tensor:
        """Turn point sets [..., 18] into boxes [..., 4]: x1, y1, x2, y2 from the location, in
        strides.
        """
        first, second, *_ = _xy(points).unbind(dim=-2)
        return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], dim=-1)


TRANSFORMS = {
    "moment": MomentTransform,
    "corners": CornerTransform,
}  # named as in `nas.config.choices.BoxTransform`


def kernel_grid() -> Tensor:
    """y and x of the cells of a 3x3 kernel from its centre: [1, 18, 1, 1]."""
    cells = torch.arange(KERNEL, dtype=torch.float32) - KERNEL // 2
    return torch.cartesian_prod(cells, cells).reshape(1, 2 * POINTS, 1, 1)


def _xy(points: Tensor) -> Tensor:
    """[..., 9, 2]."""
    pairs: Tensor = points.unflatten(-1, (POINTS, 2)).flip(-1)
    return pairs
