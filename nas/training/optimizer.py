"""The optimizer, and the learning rate as a function of the step alone."""

from __future__ import annotations

import math

import torch
from torch import nn

from nas.config.recipe import Recipe

MOMENTUM = 0.9


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer on the trainable parameters; norms, biases, scales and position tables
    are not decayed.

    `adamw`: Loshchilov & Hutter 2019; `sgd`: with a momentum of 0.9 and its decay not decoupled.
    """
    named = [
        (name, parameter)
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    ]
    plain = [
        parameter
        for name, parameter in named
        if parameter.ndim < 2 or name.endswith("position_table")
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


def lr_at(step: int, steps_per_epoch: int, recipe: Recipe, decays: int = 0) -> float:
    """Learning rate of a step, 0 the first: a linear warm-up, then the recipe's schedule.

    `constant` stays; `step` multiplies by `decay_factor` after each of `decay_epochs`; `saturate`
    has done so `decays` times (see `Saturation`); `cosine` falls to 0 at the last step.
    """
    total = recipe.epochs * steps_per_epoch
    warmup = min(recipe.warmup_steps, total - 1)
    if step < warmup:
        return recipe.lr * (step + 1) / (warmup + 1)
    if recipe.schedule == "cosine":
        return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
    if recipe.schedule == "step":
        passed = sum(step >= epoch * steps_per_epoch for epoch in recipe.decay_epochs)
        return recipe.lr * recipe.decay_factor**passed
    return recipe.lr * recipe.decay_factor**decays
