"""The loss of a detector over a split that it does not learn from."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from nas.models.detectors.base import Detector
from nas.models.detectors.normalization import Losses
from nas.utils.distributed import World, all_gather_object

SEED = 0  # of the regions that are sampled, the same after each epoch


class ValidationLoss:
    """Adds up the losses of images while they are scored. Their mean is that of all images as one
    batch, so that it does not depend on how they come, but for the regions that two-stage detectors
    sample.

    Args:
        detector: whose losses they are, in evaluation mode.
    """

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self.sums: Losses = {}
        self.counts: Losses = {}
        self._maps: tuple[ImageList, dict[str, Tensor]] | None = None

    def detections(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """Detect objects, as the detector does, in images whose losses are to be added."""
        self._maps = self.detector.maps(images)
        return self.detector.detections(*self._maps)

    def add(self, targets: list[dict[str, Tensor]]) -> None:
        """Add the losses of the images that were looked at last."""
        assert self._maps
        (batch, maps), self._maps = self._maps, None
        device = batch.tensors.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(SEED)
            found = self.detector.validation_sums(batch, maps, targets)
        for total, more in zip((self.sums, self.counts), found, strict=True):
            for name, value in more.items():
                total[name] = total.get(name, 0.0) + value.double().cpu()

    def mean(self) -> float | None:
        """Sum of the mean losses over all processes' images; None where it is not finite."""
        parts = all_gather_object(World.current(), (self.sums, self.counts))
        sums, counts = (_total(column) for column in zip(*parts, strict=True))
        least = self.detector.least_counts
        loss = 0.0
        for name, value in sums.items():
            count = counts[name].clamp(min=least.get(name, 1.0))
            loss += float((value / torch.where(count > 0, count, 1.0)).sum())
        return loss if math.isfinite(loss) else None


def _total(parts: tuple[Losses, ...]) -> Losses:
    names = dict.fromkeys(name for part in parts for name in part)
    none = torch.zeros((), dtype=torch.float64)
    return {name: sum((part.get(name, none) for part in parts), none) for name in names}
