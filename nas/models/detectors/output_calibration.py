"""Biases of a detector's last layers that make its first outputs those of the average training
image: class probabilities at the optimum of their loss for the data's own frequencies, boxes at
their means.

Related: Chen et al., "Is heuristic sampling necessary in training deep object detectors?" (arXiv
1909.04868), initialise class biases so; Lin et al. (ICCV 2017, section 4.1) with one number for
every data set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from nas.data.dataset import Batch
from nas.models.detectors.dense_head import (
    BACKGROUND,
    STRIDES,
    PyramidAnchors,
    centerness_of,
    centers_of,
)

ALPHA, GAMMA = 0.25, 2.0  # of the focal loss
LEAST_SHARE, LARGEST_SHARE = 1e-6, 0.5
LARGEST_LOGIT = 12.0
ENOUGH = 20  # positives of a class or level; of fewer the mean of all is taken


@dataclass(frozen=True)
class TrainingSample:
    """Training images as a detector will be given them.

    Args:
        targets: of each image, `boxes` [M, 4] in pixels and `labels` [M] from 1.
        sizes: of each image, height and width in pixels.
        batches: a few of the images with their pixels and targets, on the detector's device.
    """

    targets: Sequence[dict[str, Tensor]]
    sizes: Sequence[tuple[int, int]]
    batches: Sequence[Batch]


@dataclass
class LocationStatistics:
    """What the locations of a pyramid are to predict, over a sample.

    Args:
        locations: how many were looked at, over all images.
        classes: positives of each class [K].
        levels: positives of each level [L].
        codes: sum of the codes of their boxes, by level [L, 4].
        centerness: sum of their centerness.
    """

    locations: int
    classes: Tensor
    levels: Tensor
    codes: Tensor
    centerness: float = 0.0

    @property
    def positives(self) -> int:
        """Number of locations that an object is assigned to."""
        return int(self.levels.sum())

    @property
    def shares(self) -> Tensor:
        """Share of all locations that is positive, by class [K]."""
        return self.classes / max(1, self.locations)

    @property
    def mean_code(self) -> Tensor:
        """Mean code of a positive's box [4]."""
        return self.codes.sum(dim=0) / max(1, self.positives)


Match = Callable[[Tensor, Sequence[int], Tensor], Tensor]
Encode = Callable[[Tensor, Tensor], Tensor]


def location_statistics(
    sample: TrainingSample, num_classes: int, anchors: PyramidAnchors, match: Match, encode: Encode
) -> LocationStatistics:
    """Assign the objects of a sample to locations, and add up what these are to predict.

    Args:
        sample: training images.
        num_classes: K.
        anchors: gives one anchor at each location.
        match: from anchors [N, 4], the number of them on each level, and boxes [M, 4], to the index
            of each anchor's box [N], -1 for none.
        encode: from anchors [P, 4] and their boxes [P, 4] to the numbers [P, 4] whose mean counts.
    """
    found = LocationStatistics(
        0, torch.zeros(num_classes), torch.zeros(len(STRIDES)), torch.zeros(len(STRIDES), 4)
    )
    for target, size in zip(sample.targets, sample.sizes, strict=True):
        counts = anchors.counts(size)
        here = anchors.of_image(size, target["boxes"].device)
        index = match(here, counts, target["boxes"])
        positive = index != BACKGROUND
        chosen, boxes = here[positive], target["boxes"][index[positive]]
        level = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        level = level[positive.cpu()]
        found.locations += len(here)
        found.classes += _counted(target["labels"][index[positive]] - 1, num_classes)
        found.levels += _counted(level, len(counts))
        found.codes.index_add_(0, level, encode(chosen, boxes).cpu())
        found.centerness += float(centerness_of(centers_of(chosen), boxes[None]).sum())
    return found


def _counted(labels: Tensor, kinds: int) -> Tensor:
    return torch.bincount(labels.cpu(), minlength=kinds).float()


def focal_bias(shares: Tensor, negative_weight: float = 1.0) -> Tensor:
    """Logit that has the least focal loss where it is the same everywhere.

    It minimises pi a (1 - p)^2 (-ln p) + (1 - pi) (1 - a) w p^2 (-ln(1 - p)) over p, with a = 0.25;
    for small pi that is p = (pi / 9 w)^(1/3), far from the pi that cross-entropy would have.

    Args:
        shares: pi, share of positives, any shape; taken to be at least 1e-6, at most 0.5.
        negative_weight: w, mean weight of a negative.

    Returns:
        Logits, in the shape of `shares`.
    """

    def loss(logit: float, share: float) -> float:
        p = 1 / (1 + math.exp(-logit))
        hit = ALPHA * share * (1 - p) ** GAMMA * math.log1p(math.exp(-logit))
        miss = (1 - ALPHA) * (1 - share) * negative_weight * p**GAMMA * math.log1p(math.exp(logit))
        return float(hit + miss)

    bounds = (-LARGEST_LOGIT, LARGEST_LOGIT)
    found = [
        minimize_scalar(loss, bounds=bounds, args=(share,), method="bounded").x
        for share in shares.clamp(LEAST_SHARE, LARGEST_SHARE).flatten().tolist()
    ]
    return torch.tensor(found).view(shares.shape)


def logit(probability: Tensor) -> Tensor:
    """Logit of probabilities, which are taken to be at least 1e-6 from 0 and from 1."""
    return torch.logit(probability, eps=LEAST_SHARE)


def set_bias(layer: nn.Module, values: Tensor) -> None:
    """Set the bias of a layer that has one, in place, without a gradient."""
    layer.get_parameter("bias").copy_(values)


def softmax_bias(counts: Tensor) -> Tensor:
    """Logits whose softmax is the shares of counts [K], each counted once more than it came."""
    return torch.log((counts + 1) / (counts + 1).sum())
