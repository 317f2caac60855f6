"""A fresh network made ready to be trained as its recipe wants."""

from __future__ import annotations

import torch

from nas.config.recipe import Recipe
from nas.models.activation_checkpointing import checkpoint_blocks
from nas.models.drop_path import set_drop_path_
from nas.models.memory_format import channels_last_
from nas.utils.distributed import Network, World, synchronised


def prepare_network(
    network: Network, recipe: Recipe, norm: str, device: torch.device, world: World
) -> Network:
    """Move a network to its device, with what its recipe says of norms, drop path, checkpointing
    and memory format; weights stay as they are.

    Compilation is left to `nas.training.epochs.Epochs`: calibration, which comes before, looks into
    the blocks.

    Args:
        network: a detector or classifier, just built; changed in place.
        recipe: how it is trained.
        norm: of its layout; `syncbn` has batch norms over the images of all processes.
        device: where it is trained.
        world: the processes that train it together.
    """
    network = synchronised(network, norm, device, world).to(device)
    set_drop_path_(network, recipe.drop_path)
    checkpoint_blocks(network, recipe.checkpointing)
    if recipe.channels_last:
        channels_last_(network)
    return network
