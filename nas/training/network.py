"""A fresh network made ready to be trained as its recipe wants."""

from __future__ import annotations

import torch

from nas.config.recipe import Recipe
from nas.errors import SpecError
from nas.models.activation_checkpointing import checkpoint_blocks
from nas.models.backbones import HybridBackbone
from nas.models.drop_path import set_drop_path_
from nas.models.freezing import check_loaded, freeze_
from nas.models.memory_format import channels_last_
from nas.models.weights import WeightsReport, load_backbone_weights
from nas.utils.distributed import Network, World, synchronised
from nas.utils.paths import to_path
from nas.utils.url_secrets import without_secrets


def prepare_network(
    network: Network, recipe: Recipe, norm: str, device: torch.device, world: World
) -> Network:
    """Move a network to its device, with what its recipe says of norms, frozen stages, drop path,
    checkpointing and memory format; weights stay as they are.

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
    backbone = next(m for m in network.modules() if isinstance(m, HybridBackbone))
    freeze_(backbone, recipe.frozen_stages, norm_eval=recipe.norm_eval)
    checkpoint_blocks(network, recipe.checkpointing)
    if recipe.channels_last:
        channels_last_(network)
    return network


def load_weights(backbone: HybridBackbone, recipe: Recipe) -> WeightsReport:
    """Take over what fits of a recipe's `weights`, in place.

    Args:
        backbone: initialised.
        recipe: one with `weights`.

    Raises:
        SpecError: the file cannot be used, or lacks something that is not to be trained.
    """
    location = recipe.weights or ""
    try:
        report = load_backbone_weights(backbone, to_path(location))
    except SpecError as error:
        raise SpecError(without_secrets(str(error), location)) from None
    check_loaded(report, recipe.frozen_stages, norm_eval=recipe.norm_eval)
    return report
