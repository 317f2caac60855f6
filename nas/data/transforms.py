"""Resizing and flipping of detection images: what may be drawn, and what one image drew."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from nas.config.recipe import Recipe


def resized_size(height: int, width: int, short_side: int, long_side: int) -> tuple[int, int]:
    """Compute height and width in pixels of an image after it was resized.

    The short side becomes `short_side`, unless the long side would be longer than `long_side`: that
    is then what it becomes. The aspect ratio stays.
    """
    ratio = min(short_side / min(height, width), long_side / max(height, width))
    return max(1, int(height * ratio)), max(1, int(width * ratio))


@dataclass(frozen=True)
class SampledTransform:
    """What was drawn for one image.

    Args:
        size: height and width in pixels that the image gets.
        flipped: whether left and right change places.
    """

    size: tuple[int, int]
    flipped: bool

    def apply(self, image: Tensor) -> Tensor:
        """Transform an image of any size.

        Args:
            image: [3, H, W], uint8.

        Returns:
            [3, *size], float32 in 0 to 1.
        """
        if image.shape[1:] != self.size:
            image = F.resize_image(image, list(self.size), antialias=True)
        if self.flipped:
            image = F.horizontal_flip_image(image)
        converted: Tensor = F.to_dtype_image(image, torch.float32, scale=True)
        return converted


@dataclass(frozen=True)
class ResizeFlip:
    """How images of a split are resized and flipped.

    Args:
        short_sides: lengths in pixels that the short side is drawn from.
        long_side: limit of the long side in pixels.
        flip: probability that left and right change places, 0 to 1.
        masks: whether targets have masks, where the split has some.
    """

    short_sides: tuple[int, ...]
    long_side: int
    flip: float = 0.0
    masks: bool = False

    def sample(self, height: int, width: int, seed: int) -> SampledTransform:
        """Draw for an image of a height and width in pixels; `seed` alone decides."""
        generator = torch.Generator().manual_seed(seed)
        index = int(torch.randint(len(self.short_sides), (), generator=generator))
        flipped = float(torch.rand((), generator=generator)) < self.flip
        size = resized_size(height, width, self.short_sides[index], self.long_side)
        return SampledTransform(size, flipped)


def train_resize_flip(recipe: Recipe) -> ResizeFlip:
    """Build what training images go through: the recipe's short sides and flips, with masks."""
    return ResizeFlip(recipe.short_sides, recipe.long_side, recipe.flip, masks=True)


def eval_resize_flip(recipe: Recipe) -> ResizeFlip:
    """Build what scored images go through: the recipe's size, no flips, and no masks, which
    evaluation reads from the split.
    """
    return ResizeFlip((recipe.image_size,), recipe.long_side)
