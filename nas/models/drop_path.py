"""Stochastic depth (Huang et al., ECCV 2016): branches that are left out of some images."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck
from torchvision.ops import stochastic_depth

from nas.models.backbones.swin_stage import SwinBlock


def set_drop_path_(network: nn.Module, rate: float) -> None:
    """Let the blocks of a network's backbone be left out of images in training, in place: the first
    one never, the last one with probability `rate`, those between on a line.

    Args:
        network: whose Swin blocks and bottlenecks are counted alike, in order of depth; new.
        rate: 0 to 1; 0 changes nothing.
    """
    blocks = blocks_of(network)
    for number, block in enumerate(blocks if rate else []):
        drop_branch_(block, rate * number / max(1, len(blocks) - 1))


def blocks_of(network: nn.Module) -> list[SwinBlock | Bottleneck]:
    """The Swin blocks and bottlenecks of a network, in order of depth."""
    return [block for block in network.modules() if isinstance(block, (SwinBlock, Bottleneck))]


def drop_branch_(block: SwinBlock | Bottleneck, share: float) -> None:
    """Let one block be left out of an image in training with probability `share`, in place.

    Args:
        block: a new Swin block or bottleneck.
        share: 0 to 1.
    """
    block.drop_path = share
    if isinstance(block, Bottleneck):
        block.bn3.register_forward_hook(partial(_without_branch, block))


def _without_branch(block: Bottleneck, norm: object, inputs: object, branch: Tensor) -> Tensor:
    """The third norm of a bottleneck is the end of its branch; it may run as in evaluation where
    the block does not.
    """
    kept: Tensor = stochastic_depth(branch, block.drop_path, "row", block.training)
    return kept
