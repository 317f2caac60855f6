"""The ways from the image to the first stage: all hand on a map at stride 4, channels first."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class GroupNorm(nn.GroupNorm):
    """Group norm that also takes a group of a single value, as one image of a small map has; its
    output is the bias. PyTorch's own refuses it.
    """

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def norm_layer(norm: str, channels: int) -> nn.Module:
    """Make a norm over `channels`.

    Args:
        norm: `bn`, batch norm; `gn`, group norm with the largest number of groups up to 32 that
            divides the channels; `syncbn`, a batch norm, which whoever trains with several
            processes makes a synchronised one.
        channels: of the map.
    """
    return GroupNorm(math.gcd(32, channels), channels) if norm == "gn" else nn.BatchNorm2d(channels)


def symbolic(*sizes: object) -> bool:
    """Whether one of some sizes is left open, in a graph for any image size (`torch.export`)."""
    return any(isinstance(size, torch.SymInt) for size in sizes)


class ResNetStem(nn.Module):
    """ResNet's stem (He et al., CVPR 2016), a 7x7/2 convolution, norm, ReLU and a 3x3/2 max-pool:
    [B, 3, H, W] -> [B, width, ceil(H / 4), ceil(W / 4)].
    """

    def __init__(self, width: int, norm: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.norm = norm_layer(norm, width)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        pooled: Tensor = self.pool(self.relu(self.norm(self.conv(images))))
        return pooled


class DsodStem(nn.Sequential):
    """Three 3x3 convolutions, the first of stride 2, the first two half as wide, and a 2x2/2
    max-pool (DSOD, Shen et al., ICCV 2017, table 1): [B, 3, H, W] -> [B, width, ceil(H / 4), ceil(W
    / 4)].
    """

    def __init__(self, width: int, norm: str) -> None:
        layers: list[nn.Module] = []
        for in_width, out_width, stride in (
            (3, width // 2, 2),
            (width // 2, width // 2, 1),
            (width // 2, width, 1),
        ):
            convolution = nn.Conv2d(
                in_width, out_width, kernel_size=3, stride=stride, padding=1, bias=False
            )
            layers += [convolution, norm_layer(norm, out_width), nn.ReLU(inplace=True)]
        super().__init__(*layers, nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True))


class PatchStem(nn.Module):
    """Swin's patch embedding, 4x4/4 convolution and layer norm: [B, 3, H, W] -> [B, width, ceil(H /
    4), ceil(W / 4)].
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, kernel_size=4, stride=4)
        self.norm = nn.LayerNorm(width)

    def forward(self, images: Tensor) -> Tensor:
        pad_h, pad_w = ((size + 3) // 4 * 4 - size for size in images.shape[2:])
        if symbolic(pad_h, pad_w) or pad_h or pad_w:
            images = nn.functional.pad(images, (0, pad_w, 0, pad_h))
        patches: Tensor = self.norm(self.conv(images).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return patches


def make_stem(stem: str, width: int, norm: str) -> nn.Module:
    """Make a stem.

    Args:
        stem: `resnet`, `patch` or `dsod`.
        width: channels behind it.
        norm: `bn`, `gn` or `syncbn`; `patch` always has a layer norm.
    """
    return (
        PatchStem(width)
        if stem == "patch"
        else {"resnet": ResNetStem, "dsod": DsodStem}[stem](width, norm)
    )
