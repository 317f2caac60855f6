"""The two ways from the image to the first stage: both hand on a map at stride 4, channels first."""

from __future__ import annotations

import math

from torch import Tensor, nn


def norm_layer(norm: str, channels: int) -> nn.Module:
    """`bn`: batch norm; `gn`: group norm with the largest number of groups up to 32 that divides `channels`."""
    return nn.BatchNorm2d(channels) if norm == "bn" else nn.GroupNorm(math.gcd(32, channels), channels)


class ResNetStem(nn.Module):
    """7x7/2 convolution, norm, ReLU, 3x3/2 max-pool: [B, 3, H, W] -> [B, width, ceil(H / 4), ceil(W / 4)]."""

    def __init__(self, width: int, norm: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.norm = norm_layer(norm, width)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.pool(self.relu(self.norm(self.conv(images))))


class PatchStem(nn.Module):
    """Swin's patch embedding, 4x4/4 convolution and layer norm: [B, 3, H, W] -> [B, width, ceil(H / 4), ceil(W / 4)]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, kernel_size=4, stride=4)
        self.norm = nn.LayerNorm(width)

    def forward(self, images: Tensor) -> Tensor:
        pad_h, pad_w = -images.shape[2] % 4, -images.shape[3] % 4
        if pad_h or pad_w:
            images = nn.functional.pad(images, (0, pad_w, 0, pad_h))
        return self.norm(self.conv(images).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
