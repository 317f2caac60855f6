"""Backbone and feature pyramid in one module, as torchvision's detectors want it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TypedDict

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from nas.models.backbones import HybridBackbone
from nas.models.necks.bifpn import BiFpn
from nas.models.necks.dsod import DsodNeck

EXTRA_LEVELS = {"none": 0, "pool": 1, "conv": 2}


class NeckDims(TypedDict):
    """What a detector wants of its pyramid: `first` and `extra` of `PyramidBackbone`."""

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
        levels: OrderedDict[str, Tensor] = self.fpn(
            OrderedDict((str(level), x) for level, x in enumerate(maps))
        )
        return levels


def make_neck(neck: str, widths: Sequence[int], channels: int, extra: str) -> nn.Module:
    """Make the neck over the backbone's maps.

    Args:
        neck: `fpn`, `bifpn` or `dsod`.
        widths: channels of the maps.
        channels: of every level.
        extra: `none`, `pool` or `conv`: the levels behind the last map, see `PyramidBackbone`.
    """
    if neck == "dsod":
        return DsodNeck(widths, channels, EXTRA_LEVELS[extra])
    if neck == "bifpn":
        return BiFpn(widths, channels, EXTRA_LEVELS[extra])
    last: ExtraFPNBlock | None = None
    if extra != "none":
        last = LastLevelMaxPool() if extra == "pool" else LastLevelP6P7(channels, channels)
    pyramid: nn.Module = FeaturePyramidNetwork(list(widths), channels, extra_blocks=last)
    return pyramid
