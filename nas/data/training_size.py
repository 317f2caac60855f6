"""Objects that cannot be learned as a request trains: too small at its size, or too many."""

from __future__ import annotations

from collections import Counter

import numpy as np

from nas.config.recipe import Recipe
from nas.data.coco import CocoSplit
from nas.data.dataset import MIN_BOX_SIDE
from nas.errors import DataError


def vanishing_boxes(split: CocoSplit, recipe: Recipe) -> int:
    """Count the objects of which a side is less than a pixel at the smallest size of training,
    where they are left out.

    Raises:
        DataError: all of them.
    """
    short, long = min(recipe.short_sides), recipe.long_side
    ratios = {
        image.id: min(short / min(image.width, image.height), long / max(image.width, image.height))
        for image in split.images
    }
    objects = [box for box in split.boxes if not box.iscrowd]
    sides = np.array([min(box.bbox[2:]) * ratios[box.image_id] for box in objects])
    count = int((sides < MIN_BOX_SIDE).sum())
    if objects and count == len(objects):
        raise DataError(
            f"all {count} training boxes are narrower than a pixel at recipe.image_size {short}; "
            "cut the images into tiles with 'nas tile', or train on larger ones"
        )
    return count


def crowded_images(split: CocoSplit, detections: int) -> int:
    """Count the images with more objects than the detections that are made of an image."""
    counts = Counter(box.image_id for box in split.boxes if not box.iscrowd)
    return sum(count > detections for count in counts.values())
