"""Initial weights of networks: He's everywhere (He et al., ICCV 2015; the paper's choice, section
3), or Swin's in the attention stages.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from nas.config.choices import Init
from nas.models.backbones.stems import PatchStem
from nas.models.backbones.swin_stage import (
    AttentionStage,
    PatchMerging,
    SwinBlock,
    WindowAttention,
)

POSITION_STD = 0.02  # Swin's
LINEAR_STD = 0.02  # Swin's, of every linear map of its blocks


def init_backbone_(backbone: nn.Module, init: Init = "he") -> None:
    """Initialise a backbone in place.

    Args:
        backbone: of any layout.
        init: `he`, see `he_init_`; `swin` also draws the linear maps of Swin blocks and patch
            mergings from a normal distribution of deviation 0.02 that is cut off at two deviations,
            and sets their biases to 0 (Liu et al., ICCV 2021, the published code); `swin_scaled`
            is `swin` with the last layer of each residual branch, of attention and MLP, divided by
            the root of the number of branches in its stage (Radford et al. 2019, section 2.3).
    """
    he_init_(backbone)
    if init != "he":
        for module in backbone.modules():
            if isinstance(module, (SwinBlock, PatchMerging)):
                _swin_init_(module)
    if init == "swin_scaled":
        for stage in backbone.modules():
            if isinstance(stage, AttentionStage):
                _scale_branches_(stage)


def _swin_init_(module: nn.Module) -> None:
    for linear in module.modules():
        if isinstance(linear, nn.Linear):
            nn.init.trunc_normal_(
                linear.weight, std=LINEAR_STD, a=-2 * LINEAR_STD, b=2 * LINEAR_STD
            )


@torch.no_grad()
def _scale_branches_(stage: AttentionStage) -> None:
    blocks: list[Any] = list(stage.blocks)
    for block in blocks:
        for last in (block.attention.proj, block.mlp[3]):
            last.weight.mul_((2 * len(blocks)) ** -0.5)


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
