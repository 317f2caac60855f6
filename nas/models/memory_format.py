"""Maps with channels last, asked for by `recipe.channels_last`: the order of T blocks, and of the
tensor cores of GPUs.
"""

from __future__ import annotations

import torch
from torch import nn

from nas.models.classifier import Classifier
from nas.models.detectors.transform import BatchTransform


def channels_last_(network: nn.Module) -> None:
    """Have a detector or classifier make its batches channels last, in place: convolutions, batch
    norms and pools hand that on. Weights stay as they are.
    """
    for module in network.modules():
        if isinstance(module, (BatchTransform, Classifier)):
            module.memory_format = torch.channels_last
