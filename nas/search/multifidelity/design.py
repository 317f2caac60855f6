"""The first layouts of a search, before anything is known: every kind and size equally often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

FIRST = 8  # layouts that are chosen so
SHARE = 3  # of the trials at most one in so many


def designed(trials: int) -> int:
    """Count the layouts that a search of so many trials begins with."""
    return max(1, min(FIRST, trials // SHARE))


def most_balanced(
    pool: Sequence[Mapping[str, Any]], earlier: Sequence[Mapping[str, Any]], seed: int
) -> int:
    """Choose the parameters whose values have been chosen least so far; of equal ones by chance.

    Args:
        pool: parameters of the layouts that may be chosen, by name.
        earlier: those of layouts that were.
        seed: of the chance.

    Returns:
        An index into `pool`.
    """
    seen = Counter((name, value) for each in earlier for name, value in each.items())
    crowding = np.array([sum(seen[pair] for pair in each.items()) for each in pool], dtype=float)
    chance = np.random.default_rng(seed).random(len(pool))
    return int(np.lexsort((chance, crowding))[0])
