"""He initialisation of a whole network (He et al., ICCV 2015; the paper's choice, section 3)."""

from __future__ import annotations

import math

from torch import nn

from nas.models.backbones.stems import PatchStem
from nas.models.backbones.swin_stage import WindowAttention

POSITION_STD = 0.02  # Swin's


def he_init_(network: nn.Module) -> None:
    """Set every convolution and linear weight to N(0, 2 / fan_in) and its bias to 0, norms to
    identity, in place.

    The fan-in of a transposed convolution is the number of inputs that make one output.
    Position tables get N(0, 0.02^2). The bias of Swin's patch embedding is as in its published
    code, U(-b, b) with b = 1/sqrt(fan_in): without it the zeros that images are padded with reach
    the layer norms of all blocks as zeros, and each multiplies the gradient by 1/sqrt(eps), 316,
    until it overflows. Predictors want smaller weights than this: their detector sets them
    afterwards.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.ConvTranspose2d):
            fan_in = module.in_channels * math.prod(module.kernel_size) / math.prod(module.stride)
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_in))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, WindowAttention):
            nn.init.normal_(module.position_table, std=POSITION_STD)
    for module in network.modules():  # after the convolutions in it
        if isinstance(module, PatchStem) and module.conv.bias is not None:
            bound = 1 / math.sqrt(module.conv.weight[0].numel())
            nn.init.uniform_(module.conv.bias, -bound, bound)
