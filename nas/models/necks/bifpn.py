"""The weighted bidirectional feature pyramid of EfficientDet (Tan et al., CVPR 2020, section 3)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.models.backbones.stems import norm_layer

DEPTH = 2  # layers
EPS = 1e-4  # of the fusion's weights (section 3.3)


class BiFpn(nn.Module):
    """Maps at ascending strides -> levels of `channels`, each fused with the ones above, then with
    the ones below, twice.

    As in the configuration of RepPoints v2 that Swin's detection figures were counted with (42M
    parameters with ResNet-50, 45M with Swin-T): full 3x3 convolutions where EfficientDet has
    depthwise separable ones, group norm, and further levels by max-pooling the backbone's last map.

    Args:
        widths: channels of the backbone's maps.
        channels: of every level.
        extra: how many levels follow the last map.
    """

    def __init__(self, widths: Sequence[int], channels: int, extra: int) -> None:
        super().__init__()
        self.extra = extra
        widths = [*widths, *[widths[-1]] * extra]
        self.lateral = nn.ModuleList(_convolution(width, channels, 1) for width in widths)
        self.layers = nn.ModuleList(_Layer(len(widths), channels) for _ in range(DEPTH))

    def forward(self, maps: OrderedDict[str, Tensor]) -> OrderedDict[str, Tensor]:
        given = list(maps.values())
        for _ in range(self.extra):
            given.append(_halved(given[-1]))
        levels = [lateral(x) for lateral, x in zip(self.lateral, given, strict=True)]
        for layer in self.layers:
            levels = layer(levels)
        return OrderedDict((str(level), x) for level, x in enumerate(levels))


class _Layer(nn.Module):
    """One way down and one way up."""

    def __init__(self, count: int, channels: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(_Fusion(2, channels) for _ in range(count - 1))
        self.up = nn.ModuleList(
            _Fusion(3 if level < count - 1 else 2, channels) for level in range(1, count)
        )

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        middle = levels.copy()
        for level in range(len(levels) - 2, -1, -1):
            above = F.interpolate(middle[level + 1], size=levels[level].shape[-2:], mode="nearest")
            middle[level] = self.down[level](levels[level], above)
        outputs = middle[:1]
        for level, fusion in enumerate(self.up, start=1):
            here = (middle[level], levels[level]) if level < len(levels) - 1 else (levels[level],)
            outputs.append(fusion(_halved(outputs[-1]), *here))
        return outputs


class _Fusion(nn.Module):
    """Fast normalised fusion of maps of one shape (section 3.3), then swish, 3x3 convolution, group
    norm.
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(inputs))
        self.convolution = _convolution(channels, channels, 3)

    def forward(self, *maps: Tensor) -> Tensor:
        weights = F.relu(self.weights)
        shares = weights / (weights.sum() + EPS)
        first, *others = (share * x for share, x in zip(shares, maps, strict=True))
        fused: Tensor = self.convolution(F.silu(sum(others, start=first)))
        return fused


def _halved(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2, padding=1)


def _convolution(in_width: int, width: int, kernel_size: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_width, width, kernel_size, padding=kernel_size // 2, bias=False)
    return nn.Sequential(convolution, norm_layer("gn", width))
