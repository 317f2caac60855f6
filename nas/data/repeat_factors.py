"""Repeat factors: images of rare classes are drawn more often (Gupta et al., LVIS, CVPR 2019;
appendix B.2 of arXiv 1908.03195v2).

There an epoch grows by the factors. Here it keeps its number of images, so that steps, schedules
and forecasts stay what they are: images are drawn in proportion to their factors, those without a
rare class less than once an epoch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch

from nas.data.coco import CocoSplit


def repeat_factors(split: CocoSplit, threshold: float) -> list[float]:
    """Compute how often each image of a split is to be seen, relative to one without a rare class.

    Class c, which is in a share f_c of the images, has the factor max(1, sqrt(threshold / f_c)),
    and an image the largest of its classes. Crowds, which are not trained on, do not count.

    Args:
        split: images and boxes.
        threshold: share of the images below which a class is rare, 0 to 1.

    Returns:
        A factor of at least 1 for each image, in the order of the split.
    """
    objects = split.boxes.objects
    pairs = set(zip(objects.image_ids.tolist(), objects.category_ids.tolist(), strict=True))
    counts = Counter(category for _, category in pairs)
    images = len(split.images)
    factors = {image.id: 1.0 for image in split.images}
    for image, category in pairs:
        rare = math.sqrt(threshold * images / counts[category])
        factors[image] = max(factors[image], rare)
    return list(factors.values())


def draw_counts(factors: Sequence[float], total: int, generator: torch.Generator) -> list[int]:
    """Draw how often each is taken, `total` times in all: its share of that, rounded up or down so
    that it is right on average (systematic sampling).

    Args:
        factors: above 0, in proportion to which they are taken.
        total: sum of what is drawn.
        generator: draws an order and an offset.
    """
    order = torch.randperm(len(factors), generator=generator)
    shares = torch.tensor(factors, dtype=torch.float64)[order]
    ends = (total * shares / shares.sum()).cumsum(0)
    ends[-1] = total  # whatever was lost in the sum
    offset = torch.rand((), generator=generator, dtype=torch.float64)
    counts = torch.zeros(len(factors), dtype=torch.int64)
    counts[order] = (ends + offset).floor().long().diff(prepend=torch.zeros(1, dtype=torch.int64))
    drawn: list[int] = counts.tolist()
    return drawn
