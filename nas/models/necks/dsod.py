"""The neck of DSOD."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.models.backbones.stems import norm_layer


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
