"""Shapes of the batches of a training, from the sizes of its images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

from nas.config.recipe import LARGEST_STRIDE, Recipe
from nas.data.coco import ImageRecord


def resized_size(height: int, width: int, short_side: int, long_side: int) -> tuple[int, int]:
    """Compute height and width in pixels of an image after it was resized.

    The short side becomes `short_side`, unless the long side would be longer than `long_side`: that
    is then what it becomes. The aspect ratio stays, but for rounding to whole pixels, a half up.
    """
    ratio = min(short_side / min(height, width), long_side / max(height, width))
    return max(1, int(height * ratio + 0.5)), max(1, int(width * ratio + 0.5))


def aspect_groups(images: Sequence[ImageRecord]) -> tuple[list[int], list[int]]:
    """Split indices of images into those of landscape (or square) and of portrait ones."""
    landscape = [index for index, image in enumerate(images) if image.width >= image.height]
    portrait = [index for index, image in enumerate(images) if image.width < image.height]
    return landscape, portrait


def joined_groups(groups: Iterable[Sequence[int]], size: int) -> list[list[Sequence[int]]]:
    """Join a group of fewer images than half a batch with the other one, where both together fill a
    batch: a batch of its own would have its images more than twice.

    Args:
        groups: indices of the images, at most two groups.
        size: images of one batch.

    Returns:
        Of each group that is left its parts: one, or the few and the many.
    """
    parts = [group for group in groups if group]
    fewest = min(map(len, parts), default=0)
    if len(parts) == 2 and 2 * fewest < size <= sum(map(len, parts)):
        return [sorted(parts, key=len)]
    return [[part] for part in parts]


def largest_batch_shape(
    images: Sequence[ImageRecord], recipe: Recipe, processes: int = 1
) -> tuple[int, int, int, int]:
    """Bound the shape of the batches of a training: [B, 3, H, W], padded as detectors pad.

    B is what one GPU has in memory at once. The tallest and the widest image of those that may be
    in one batch (see `AspectRatioBatchSampler` of `nas.data.samplers`) are taken to meet there, so
    that no batch is larger but most are smaller.

    Args:
        images: of the training split.
        recipe: how they are resized, and how many are in memory at once.
        processes: that train together.
    """
    shapes = []
    at_once = min(recipe.batch, recipe.micro_batch_size * processes)
    for parts in joined_groups(aspect_groups(images), at_once):
        sides = {(images[i].height, images[i].width) for i in itertools.chain(*parts)}
        sizes = [
            resized_size(h, w, short, recipe.long_side)
            for h, w in sides
            for short in recipe.short_sides
        ]
        if sizes:
            shapes.append(tuple(_padded(max(side)) for side in zip(*sizes, strict=True)))
    height, width = max(shapes, key=math.prod)
    return recipe.micro_batch_size, 3, height, width


def _padded(side: int) -> int:
    return math.ceil(side / LARGEST_STRIDE) * LARGEST_STRIDE
