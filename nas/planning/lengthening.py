"""A planned request for another number of epochs, with all that depends on their number."""

from __future__ import annotations

import math

from nas.config.spec import SearchSpec
from nas.planning.rules import averaging


def with_epochs(spec: SearchSpec, epochs: int, train_images: int, why: str) -> SearchSpec:
    """Copy a request for another number of epochs.

    `recipe.decay_epochs` grow with them, and the average of the weights where the plan decided it.

    Args:
        spec: the request, planned.
        epochs: what is trained instead of `recipe.epochs`.
        train_images: of the data set.
        why: for the plan, where that had decided the epochs.
    """
    recipe = spec.recipe
    later = [max(1, round(epoch * epochs / recipe.epochs)) for epoch in recipe.decay_epochs]
    changes = {"epochs": epochs, "decay_epochs": tuple(later)}
    if "recipe.ema" in spec.plan and recipe.ema:
        changes["ema"] = averaging(epochs * math.ceil(train_images / recipe.batch))
    plan = {**spec.plan, "recipe.epochs": why} if "recipe.epochs" in spec.plan else spec.plan
    return spec.model_copy(update={"recipe": recipe.model_copy(update=changes), "plan": plan})
