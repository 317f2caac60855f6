"""The optimizer, and the learning rate as a function of the step alone."""

from __future__ import annotations

import torch
from torch import nn

from nas.config.recipe import Recipe

MOMENTUM = 0.9
# Tables that are looked up, not multiplied with: Swin's, and the proposals of Sparse R-CNN, which
# decay would pull to the corner of the image.
UNDECAYED = ("position_table", "proposal_boxes", "proposal_features")


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Make the recipe's optimizer of the trainable parameters; norms, biases, scales, position
    tables and learned proposals are not decayed.

    `adamw`: Loshchilov & Hutter, ICLR 2019; `sgd`: with a momentum of 0.9, and its decay not
    decoupled. Both are fused: `train_epoch` relies on their `found_inf`.
    """
    named = [
        (name, parameter)
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    ]
    plain = [
        parameter for name, parameter in named if parameter.ndim < 2 or name.endswith(UNDECAYED)
    ]
    ids = {id(parameter) for parameter in plain}
    decayed = [parameter for _, parameter in named if id(parameter) not in ids]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=MOMENTUM, fused=True)
    return torch.optim.AdamW(groups, lr=recipe.lr, fused=True)
