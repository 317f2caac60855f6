"""Crops around objects, as SSD draws them (Liu et al., ECCV 2016, section 2.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from nas.data.seeding import seeded

LEAST_SIDE = 4  # pixels; of less, three tenths are no pixel


class Crop(NamedTuple):
    """A part of an image, in its pixels."""

    top: int
    left: int
    height: int
    width: int


def draw_crop(size: tuple[int, int], boxes: Tensor, seed: int) -> Crop | None:
    """Draw a crop that overlaps some box by an IoU of at least 0, 0.1, 0.3, 0.5, 0.7 or 0.9, each
    as likely as no crop; with sides of 0.3 to 1 of the image's and an aspect ratio of 1/2 to 2.

    It is torchvision's `RandomIoUCrop` that draws; where 40 tries find none, with another overlap.

    Args:
        size: height and width of the image in pixels.
        boxes: [N, 4] as x1, y1, x2, y2 in pixels; with none there is no crop.
        seed: decides alone.

    Returns:
        The crop; None for the whole image.
    """
    if not len(boxes) or min(size) < LEAST_SIDE:
        return None
    image = torch.empty(()).expand(3, *size)  # only its size is looked at
    objects = tv_tensors.BoundingBoxes(
        boxes, format=tv_tensors.BoundingBoxFormat.XYXY, canvas_size=size
    )
    with seeded(seed):
        found = v2.RandomIoUCrop().make_params([image, objects])
    return Crop(found["top"], found["left"], found["height"], found["width"]) if found else None
