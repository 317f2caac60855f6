"""The C stage: ResNet v1.5 bottlenecks (He et al., CVPR 2016; the stride is in the 3x3
convolution), torchvision's block as it is.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from torch import nn
from torchvision.models.resnet import Bottleneck

from nas.models.backbones.stems import norm_layer


class BottleneckDims(NamedTuple):
    """Dimensions of one bottleneck: channels in and out, stride, and the name of its norm."""

    in_width: int
    width: int
    stride: int
    norm: str


def bottleneck(dims: BottleneckDims) -> Bottleneck:
    """Make a bottleneck whose inner width is a quarter of its `width`: [B, in_width, H, W] -> [B,
    width, ceil(H / stride), ceil(W / stride)].

    Where the shape changes, its shortcut is a 1x1 convolution and a norm.
    """
    in_width, width, stride, norm = dims
    norm_of = partial(norm_layer, norm)
    projection = None
    if stride != 1 or in_width != width:
        projection = nn.Sequential(
            nn.Conv2d(in_width, width, kernel_size=1, stride=stride, bias=False), norm_of(width)
        )
    return Bottleneck(in_width, width // 4, stride, projection, norm_layer=norm_of)


def bottleneck_dims(
    *, in_width: int, width: int, depth: int, stride: int, norm: str
) -> list[BottleneckDims]:
    """Dimensions of the blocks of a C stage; the first one has its stride.

    Args:
        in_width: channels that the stage is given.
        width: channels that it gives.
        depth: number of blocks.
        stride: of the stage, 1 or 2.
        norm: `bn`, `gn` or `syncbn`.
    """
    first, rest = (
        BottleneckDims(in_width, width, stride, norm),
        BottleneckDims(width, width, 1, norm),
    )
    return [first, *[rest] * (depth - 1)]


class ConvStage(nn.Sequential):
    """`depth` bottlenecks: [B, in_width, H, W] -> [B, width, ceil(H / s), ceil(W / s)], where s is
    the stride of the first one.
    """

    def __init__(self, *, in_width: int, width: int, depth: int, stride: int, norm: str) -> None:
        dims = bottleneck_dims(
            in_width=in_width, width=width, depth=depth, stride=stride, norm=norm
        )
        super().__init__(*map(bottleneck, dims))
