"""Backbone and feature pyramid in one module, as torchvision's detectors want it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TypedDict

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from nas.backbone import HybridBackbone


class NeckDims(TypedDict):
    """Two arguments of `PyramidBackbone`."""

    first: int
    extra: str


class PyramidBackbone(nn.Module):
    """Images to a feature pyramid (Lin et al., CVPR 2017): [B, 3, H, W] -> maps of `channels` at ascending strides.

    Args:
        backbone: gives four maps at strides 4, 8, 16, 32.
        channels: of every level.
        first: the first backbone map used, 0 (stride 4) or 1 (stride 8). The output norm of a map that nothing uses is
            frozen, so that every trainable parameter gets a gradient.
        extra: `pool` adds one level by subsampling the last; `conv` adds two by stride-2 convolutions on the last output.
    """

    def __init__(self, backbone: HybridBackbone, *, channels: int, first: int, extra: str) -> None:
        super().__init__()
        self.backbone, self.first, self.out_channels = backbone, first, channels
        self.fpn = feature_pyramid(backbone.widths[first:], channels, extra)
        for unused in backbone.norms[:first]:
            unused.requires_grad_(False)

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        maps = self.backbone(images)[self.first :]
        return self.fpn(OrderedDict((str(level), x) for level, x in enumerate(maps)))


def feature_pyramid(widths: Sequence[int], channels: int, extra: str) -> FeaturePyramidNetwork:
    """torchvision's pyramid over maps of `widths`, with the extra levels that `PyramidBackbone` describes."""
    last = LastLevelMaxPool() if extra == "pool" else LastLevelP6P7(channels, channels)
    return FeaturePyramidNetwork(list(widths), channels, extra_blocks=last)
