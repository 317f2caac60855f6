"""Deformable convolution (Dai et al., ICCV 2017), torchvision's."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.ops import deform_conv2d


class DeformableConv(nn.Conv2d):
    """A convolution that is told where to sample, in fp32 as torchvision's is under autocast.

    A convolution to those who initialise, calibrate and count.
    """

    def __init__(self, in_channels: int, channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, channels, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor, offsets: Tensor) -> Tensor:  # type: ignore[override]
        """[B, C, H, W] -> [B, channels, H, W]; `offsets` [B, 2 k^2, H, W], y and x from each cell
        of the kernel, in cells.
        """
        convolved: Tensor = deform_conv2d(
            x.float(), offsets.float(), self.weight, padding=self.padding
        )
        return convolved
