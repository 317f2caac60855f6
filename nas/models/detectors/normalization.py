"""What losses are divided by: counts of a whole batch, in however many pieces and on however many
processes it is computed.

A loss is a sum over objects, locations or images, divided by their number in the batch. A piece of
the batch that divided by its own number would weigh its objects differently from those of the next
piece; so its sum is divided by the mean number of a piece, which is known before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nas.utils.distributed import World, all_reduce_mean

Losses = dict[str, Tensor]  # by name
Counts = Mapping[str, Tensor]  # by name of a loss, in the shape of its sums
SMALLEST = 1.0


def batch_divisors(pieces: Sequence[Counts], least: Mapping[str, float] | None = None) -> Losses:
    """Divisors of every piece of a batch: the total of each count over pieces and processes,
    divided by the number of both.

    Args:
        pieces: counts of each piece of this process; every process has as many.
        least: smallest total by name, 1 where it is not given. A total of 0 becomes 1.
    """
    parts = len(pieces) * World.current().size
    divisors = {}
    for name in pieces[0]:
        mean = all_reduce_mean(torch.stack([piece[name].float() for piece in pieces]).mean(dim=0))
        total = (mean * parts).clamp(min=(least or {}).get(name, SMALLEST))
        divisors[name] = torch.where(total > 0, total, 1) / parts
    return divisors


def divided(sums: Mapping[str, Tensor], divisors: Mapping[str, Tensor]) -> Losses:
    """Divide each sum, and add up those of a loss that has several: scalars by name."""
    return {name: (value / divisors[name]).sum() for name, value in sums.items()}
