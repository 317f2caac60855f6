"""What a card adds to the prediction, learnt from the trials that were measured on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# A slope is trusted as far as the predictions it comes from are spread: half, where their standard
# deviation is this share of their mean over the square root of their number.
PRIOR_SPREAD = 0.1


@dataclass(frozen=True)
class Correction:
    """A line through measurements on one kind of card: `measured = scale * predicted +
    offset_bytes`.

    Args:
        device: name of the card.
        trials: number of measurements.
        scale: slope, 1 where predictions are right.
        offset_bytes: what the card adds to each.
    """

    device: str
    trials: int
    scale: float
    offset_bytes: float

    def __call__(self, predicted_bytes: int) -> int:
        """The prediction for that card."""
        return round(self.scale * predicted_bytes + self.offset_bytes)


def fit_correction(device: str, predicted: Sequence[int], measured: Sequence[int]) -> Correction:
    """Fit a line by least squares, with the slope drawn towards 1, so that the first trial gives an
    offset and no more.

    Args:
        device: name of the card.
        predicted: bytes, of each trial.
        measured: bytes, of each trial.
    """
    x, y = np.asarray(predicted, float), np.asarray(measured, float)
    prior = (PRIOR_SPREAD * x.mean()) ** 2 / len(x)
    scale = 1 + np.mean((x - x.mean()) * (y - x - (y - x).mean())) / (x.var() + prior)
    return Correction(device, len(x), float(scale), float((y - scale * x).mean()))
