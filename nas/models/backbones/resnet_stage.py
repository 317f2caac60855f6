"""The C stage: ResNet v1.5 bottlenecks (He et al. 2016; stride in the 3x3), torchvision's block as
it is.
"""

from __future__ import annotations

from functools import partial

from torch import nn
from torchvision.models.resnet import Bottleneck

from nas.models.backbones.stems import norm_layer


class ConvStage(nn.Sequential):
    """`depth` bottlenecks, inner width a quarter of `width`: [B, in_width, H, W] -> [B, width,
    ceil(H / s), ceil(W / s)].

    The first block has the stride s and, where the shape changes, a 1x1 projection on its shortcut.
    """

    def __init__(self, *, in_width: int, width: int, depth: int, stride: int, norm: str) -> None:
        norm_of = partial(norm_layer, norm)
        projection = None
        if stride != 1 or in_width != width:
            projection = nn.Sequential(
                nn.Conv2d(in_width, width, kernel_size=1, stride=stride, bias=False), norm_of(width)
            )
        first = Bottleneck(in_width, width // 4, stride, projection, norm_layer=norm_of)
        rest = [Bottleneck(width, width // 4, norm_layer=norm_of) for _ in range(depth - 1)]
        super().__init__(first, *rest)
