"""Deformable convolution (Dai et al., ICCV 2017), torchvision's."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.ops import deform_conv2d


class DeformableConv(nn.Conv2d):
    """A convolution that is told where to sample (Dai et al., ICCV 2017), computed in fp32 as
    torchvision's is under autocast.

    It is a `Conv2d` to those who initialise, calibrate and count.
    """

    def __init__(self, in_channels: int, channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, channels, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor, offsets: Tensor) -> Tensor:  # type: ignore[override]
        """Convolve [B, C, H, W] to [B, channels, H, W].

        Args:
            x: the map.
            offsets: [B, 2 k^2, H, W], y and x from each cell of the k x k kernel to where it
                samples, in cells.
        """
        convolved: Tensor = deform_conv2d(
            x.float(), offsets.float(), self.weight, padding=self.padding
        )
        return convolved
