"""Augmentation of detection images: what one image drew, and how it is done to pixels, masks and
boxes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F


class Colors(NamedTuple):
    """Factors of brightness, contrast and saturation, and shift of the hue in turns; 1, 1, 1 and 0
    change nothing.
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0

    def apply(self, image: Tensor) -> Tensor:
        """Change an image [3, H, W], float in 0 to 1."""
        image = F.adjust_brightness_image(image, self.brightness)
        image = F.adjust_contrast_image(image, self.contrast)
        image = F.adjust_saturation_image(image, self.saturation)
        changed: Tensor = F.adjust_hue_image(image, self.hue) if self.hue else image
        return changed


UNCHANGED = Colors()


@dataclass(frozen=True)
class SampledTransform:
    """What was drawn for one image: it is resized, then turned, then moved in a frame, then turned
    over.

    Args:
        size: height and width in pixels of the frame, which is what the image gets.
        flipped: whether left and right change places.
        resized: height and width in pixels that the whole image is resized to; the frame's where
            nothing is cut off or filled up.
        offset: row and column of the frame at which the resized and turned image begins, negative
            where the frame begins inside the image; what it leaves free is black.
        upended: whether top and bottom change places.
        colors: changed after that.
        turns: quarter turns, counter-clockwise.
        window: row, column, height and width of the part of the frame, before it is turned over,
            that shows the image; the rest is black. None: all of it.
    """

    size: tuple[int, int]
    flipped: bool
    resized: tuple[int, int] | None = None
    offset: tuple[int, int] = (0, 0)
    upended: bool = False
    colors: Colors = UNCHANGED
    turns: int = 0
    window: tuple[int, int, int, int] | None = None

    @property
    def whole(self) -> tuple[int, int]:
        """Height and width in pixels of the whole image, resized."""
        return self.resized or self.size

    @property
    def visible(self) -> tuple[int, int, int, int]:
        """The part of the frame, turned over, that shows the image: x1, y1, x2, y2 in pixels."""
        all_rows, all_columns = self.size
        top, left, height, width = self.window or (0, 0, *self.size)
        top = all_rows - top - height if self.upended else top
        left = all_columns - left - width if self.flipped else left
        return left, top, left + width, top + height

    def apply(self, image: Tensor) -> Tensor:
        """Transform an image of any size.

        Args:
            image: [3, H, W], uint8.

        Returns:
            [3, *size], float32 in 0 to 1.
        """
        if image.shape[1:] != self.whole:
            image = F.resize_image(image, list(self.whole), antialias=True)
        converted: Tensor = F.to_dtype_image(self.place(image), torch.float32, scale=True)
        return converted if self.colors == UNCHANGED else self.colors.apply(converted)

    def place(self, pixels: Tensor) -> Tensor:
        """Turn an image or masks [..., *whole], already resized, put it into the frame, and turn
        it over.
        """
        if self.turns:
            pixels = pixels.rot90(self.turns, (-2, -1))
        if pixels.shape[-2:] != self.size or self.offset != (0, 0):
            pixels = self._framed(pixels)
        turned = [axis for axis, on in ((-2, self.upended), (-1, self.flipped)) if on]
        return pixels.flip(turned) if turned else pixels

    def _framed(self, pixels: Tensor) -> Tensor:
        top, left = self.offset
        if self.window is None:
            framed: Tensor = F.crop_image(pixels, -top, -left, *self.size)
            return framed
        row, column, height, width = self.window
        framed = pixels.new_zeros(*pixels.shape[:-2], *self.size)
        seen = F.crop_image(pixels, row - top, column - left, height, width)
        framed[..., row : row + height, column : column + width] = seen
        return framed

    def place_boxes(self, boxes: Tensor) -> Tensor:
        """Put boxes [N, 4] of the resized image into the frame, uncut: x1, y1, x2, y2 in pixels of
        the frame.
        """
        boxes = turned_boxes(boxes, self.whole, self.turns)
        top, left = self.offset
        boxes = boxes + boxes.new_tensor([left, top, left, top])
        height, width = self.size
        if self.flipped:
            boxes = boxes[:, [2, 1, 0, 3]] * boxes.new_tensor([-1, 1, -1, 1])
            boxes = boxes + boxes.new_tensor([width, 0, width, 0])
        if self.upended:
            boxes = boxes[:, [0, 3, 2, 1]] * boxes.new_tensor([1, -1, 1, -1])
            boxes = boxes + boxes.new_tensor([0, height, 0, height])
        return boxes

    def cut_boxes(self, placed: Tensor) -> Tensor:
        """Cut boxes of `place_boxes` to what is visible."""
        x1, y1, x2, y2 = self.visible
        return torch.stack(
            [
                placed[:, 0::2].clamp(x1, x2),
                placed[:, 1::2].clamp(y1, y2),
            ],
            dim=2,
        ).flatten(1)


def turned_boxes(boxes: Tensor, size: tuple[int, int], turns: int) -> Tensor:
    """Turn boxes [N, 4] with their image, counter-clockwise.

    Args:
        boxes: x1, y1, x2, y2 in pixels of the image.
        size: height and width of the image in pixels, before it is turned.
        turns: quarter turns.
    """
    height, width = size
    for _ in range(turns):  # the right edge becomes the upper one
        boxes = boxes[:, [1, 2, 3, 0]] * boxes.new_tensor([1, -1, 1, -1])
        boxes = boxes + boxes.new_tensor([0, width, 0, width])
        height, width = width, height
    return boxes
