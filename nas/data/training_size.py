"""Objects that cannot be learned as a request trains: too small at its size, or too many."""

from __future__ import annotations

import numpy as np

from nas.config.recipe import Recipe
from nas.data.coco import CocoSplit
from nas.errors import DataError

MIN_BOX_SIDE = 1.0  # pixels; in training narrower boxes are left out


def vanishing_boxes(split: CocoSplit, recipe: Recipe) -> int:
    """Count the objects of which a side is less than a pixel at the smallest size of training,
    where they are left out.

    Raises:
        DataError: all of them.
    """
    short, long = min(recipe.short_sides), recipe.long_side
    images = np.array([(image.width, image.height) for image in split.images], dtype=float)
    ratios = np.minimum(short / images.min(axis=1), long / images.max(axis=1))
    objects, index = split.boxes.objects, {im.id: row for row, im in enumerate(split.images)}
    sides = objects.bboxes[:, 2:].min(axis=1) * ratios[objects.by_image(index)]
    count = int((sides < MIN_BOX_SIDE).sum())
    if count and count == len(objects):
        raise DataError(
            f"all {count} training boxes are narrower than a pixel at recipe.image_size {short}; "
            "cut the images into tiles with 'nas tile', or train on larger ones"
        )
    return count


def crowded_images(split: CocoSplit, detections: int) -> int:
    """Count the images with more objects than the detections that are made of an image."""
    _, counts = np.unique(split.boxes.objects.image_ids, return_counts=True)
    return int((counts > detections).sum())
