"""Compilation for training (`torch.compile`), asked for by `recipe.compile`.

What is compiled is rich in memory-bound operators: C blocks, the second half of T blocks and the
towers of one-stage detectors, each once for all image sizes. Windows are not: their padding differs
by size, and PyTorch would compile them again for each. Losses and gradients stay those without it,
but for the order of sums.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

import torch
from torch import nn
from torchvision.models.resnet import Bottleneck

from nas.errors import SpecError
from nas.models.activation_checkpointing import trained_as
from nas.models.backbones.swin_stage import SwinBlock
from nas.models.detectors.dense_head import Tower


def compile_blocks(network: nn.Module) -> None:
    """Compile what trains, in place, when it first runs; equal pieces are compiled once. Weights
    keep their names, and where no gradients are wanted all runs as it is written.

    Raises:
        SpecError: there is no C++ compiler, which PyTorch needs for the CPU and for GPUs.
    """
    compiler = os.environ.get("CXX", "g++")  # as PyTorch looks for it
    if not shutil.which(compiler):
        raise SpecError(
            f"recipe.compile needs a C++ compiler: there is no {compiler!r} here; install one or "
            "name it in CXX"
        )
    compiled: Any = torch.compile  # its types know no method
    for module in network.modules():
        if isinstance(module, (Bottleneck, Tower)):
            trained_as(module, "forward", compiled(module.forward, dynamic=True))
        elif isinstance(module, SwinBlock):
            trained_as(module, "feed_forward", compiled(module.feed_forward, dynamic=True))
