"""Backbone and feature pyramid in one module, as torchvision's detectors want it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from nas.models.backbones import HybridBackbone
from nas.models.backbones.stems import norm_layer
from nas.models.necks.bifpn import BiFpn

EXTRA_LEVELS = {"none": 0, "pool": 1, "conv": 2}


class NeckDims(TypedDict):
    """Two arguments of `PyramidBackbone`."""

    first: int
    extra: str


class PyramidBackbone(nn.Module):
    """Images to a feature pyramid (Lin et al., CVPR 2017): [B, 3, H, W] -> maps of `channels` at
    ascending strides.

    Args:
        backbone: gives four maps at strides 4, 8, 16, 32.
        channels: of every level.
        first: the first backbone map used, 0 (stride 4) or 1 (stride 8). The output norm of a map
            that nothing uses is frozen, so that every trainable parameter gets a gradient.
        extra: `none`; `pool` adds one level by subsampling the last; `conv` two by stride-2
            convolutions on the last output.
        neck: `fpn`, `bifpn` (see `BiFpn`, which pools its extra levels) or `dsod` (see `DsodNeck`).
    """

    def __init__(
        self, backbone: HybridBackbone, *, channels: int, first: int, extra: str, neck: str = "fpn"
    ) -> None:
        super().__init__()
        self.backbone, self.first, self.out_channels = backbone, first, channels
        self.fpn = make_neck(neck, backbone.widths[first:], channels, extra)
        for unused in backbone.norms[:first]:
            unused.requires_grad_(False)

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        maps = self.backbone(images)[self.first :]
        return self.fpn(OrderedDict((str(level), x) for level, x in enumerate(maps)))


class DsodNeck(nn.Module):
    """Levels that learn half of their maps and reuse half of the level before (DSOD, Shen et al.,
    ICCV 2017, section 3.2).

    The reused half is the level before, 2x2 max-pooled, through a 1x1 convolution. The learned half
    comes from the backbone's map of that scale by a 1x1 convolution, where there is none from the
    level before by a 1x1 and a 3x3/2 convolution; each with a group norm and ReLU. The first level
    is learned whole. DSOD has batch norm and its own backbone's maps; here the neck stands in for
    the feature pyramid, with as many levels.

    Args:
        widths: channels of the backbone's maps.
        channels: of every level.
        extra: how many levels follow the last map.
    """

    def __init__(self, widths: Sequence[int], channels: int, extra: int) -> None:
        super().__init__()
        half = channels // 2
        self.learned = nn.ModuleList(
            _convolution(width, half if level else channels, 1)
            for level, width in enumerate(widths)
        )
        for _ in range(extra):
            self.learned.append(
                nn.Sequential(
                    _convolution(channels, half, 1), _convolution(half, half, 3, stride=2)
                )
            )
        self.reused = nn.ModuleList(
            _convolution(channels, half, 1) for _ in range(len(widths) + extra - 1)
        )

    def forward(self, maps: OrderedDict[str, Tensor]) -> OrderedDict[str, Tensor]:
        given = list(maps.values())
        levels = [self.learned[0](given[0])]
        for level, (learned, reused) in enumerate(
            zip(list(self.learned)[1:], self.reused, strict=True), start=1
        ):
            before = levels[-1]
            new = learned(given[level] if level < len(given) else before)
            levels.append(
                torch.cat([new, reused(F.max_pool2d(before, 2, stride=2, ceil_mode=True))], dim=1)
            )
        return OrderedDict((str(level), x) for level, x in enumerate(levels))


def _convolution(in_width: int, width: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(
        in_width, width, kernel_size, stride=stride, padding=kernel_size // 2, bias=False
    )
    return nn.Sequential(convolution, norm_layer("gn", width), nn.ReLU())


def make_neck(neck: str, widths: Sequence[int], channels: int, extra: str) -> nn.Module:
    """The levels over maps of `widths`, with the extra ones that `PyramidBackbone` describes."""
    if neck == "dsod":
        return DsodNeck(widths, channels, EXTRA_LEVELS[extra])
    if neck == "bifpn":
        return BiFpn(widths, channels, EXTRA_LEVELS[extra])
    last: ExtraFPNBlock | None = None
    if extra != "none":
        last = LastLevelMaxPool() if extra == "pool" else LastLevelP6P7(channels, channels)
    return FeaturePyramidNetwork(list(widths), channels, extra_blocks=last)
