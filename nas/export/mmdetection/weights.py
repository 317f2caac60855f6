"""Weights under mmdetection's names. Bundles have a copy of `renamed`, so it needs torch only."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def renamed(weights: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Name a detector's weights as mmdetection does.

    There the background is the last class instead of the first, and each level's scale is a
    parameter of its own.

    Args:
        weights: tensors by name.
        names: beginnings of names, and what mmdetection has in their place; weights whose name
            begins with none of them are left out.
    """
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        ours = next((each for each in names if name.startswith(each)), None)
        if ours is None:
            continue
        new = names[ours] + name[len(ours) :]
        if name.endswith(".scales"):
            found |= {f"{new}.{level}.scale": scale for level, scale in enumerate(weight)}
        else:
            found[new] = weight.roll(-1, 0) if ".cls_score." in name else weight
    return found
