"""Augmentation of detection images: what may be drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from nas.config.choices import AugmentationPolicy
from nas.config.recipe import Recipe
from nas.data.batch_shapes import resized_size
from nas.data.iou_crop import Crop, draw_crop
from nas.data.placement import Pair, Placement, cropped, fitted, jittered
from nas.data.sampled_transform import UNCHANGED, Colors, SampledTransform, turned_boxes


class PolicyRanges(NamedTuple):
    """What a policy draws from.

    Args:
        scales: least and most that an image is enlarged by within its frame.
        jittered: share of the images that are.
        colors: most that brightness, contrast and saturation change by, as a fraction.
        hue: most that the hue is shifted, in turns.
    """

    scales: tuple[float, float] = (1.0, 1.0)
    jittered: float = 0.0
    colors: float = 0.0
    hue: float = 0.0


CACHED_SCALE = 1.5
# Scale jitter as in Ghiasi et al. (CVPR 2021): 0.8 to 1.25 there is the standard one, 0.1 to 2 the
# large one; colours as in SSD (Liu et al., ECCV 2016), milder.
POLICIES: dict[AugmentationPolicy, PolicyRanges] = {
    "none": PolicyRanges(),
    "light": PolicyRanges(),
    "standard": PolicyRanges((0.6, 1.5), 0.8, 0.2, 0.02),
    "strong": PolicyRanges((0.3, 2.0), 0.9, 0.4, 0.05),
}


@dataclass(frozen=True)
class TransformSampler:
    """Draws how images of a split are resized, augmented and turned over.

    Args:
        short_sides: lengths in pixels that the short side is drawn from.
        long_side: limit of the long side in pixels.
        flip: probability that left and right change places, 0 to 1.
        masks: whether targets have masks, where the split has some.
        upend: probability that top and bottom change places, 0 to 1.
        ranges: of what else is drawn.
        turn: probability that an image is turned by 90, 180 or 270 degrees, each as likely, 0 to 1.
            The frame stays as it was: an image that is not square is made smaller by a turn of 90
            or 270 degrees, so that it fits, with black beside it.
        iou_crop: probability that an image goes through SSD's random crop around its objects
            (`nas.data.iou_crop`) in place of the scales of `ranges`, 0 to 1. The crop is enlarged
            as far as it fits into the image's frame, with black beside it.
    """

    short_sides: tuple[int, ...]
    long_side: int
    flip: float = 0.0
    masks: bool = False
    upend: float = 0.0
    ranges: PolicyRanges = POLICIES["none"]
    turn: float = 0.0
    iou_crop: float = 0.0

    @property
    def cached_sides(self) -> tuple[int, int]:
        """Short and long side in pixels that decoded images are kept at: the largest drawn, up to
        one and a half times the frame; beyond that they are enlarged.
        """
        most = CACHED_SCALE if self.iou_crop else min(self.ranges.scales[1], CACHED_SCALE)
        return round(max(self.short_sides) * most), round(self.long_side * most)

    def sample(
        self, height: int, width: int, seed: int, boxes: Tensor | None = None
    ) -> SampledTransform:
        """Draw for an image.

        Args:
            height, width: of the image in pixels.
            seed: decides alone.
            boxes: of its objects, [N, 4] as x1, y1, x2, y2 in pixels; None: there is no crop around
                objects.
        """
        generator = torch.Generator().manual_seed(seed)
        index = int(torch.randint(len(self.short_sides), (), generator=generator))
        flipped = float(torch.rand((), generator=generator)) < self.flip
        drawn = torch.rand(9, generator=generator, dtype=torch.float64).tolist()
        frame = resized_size(height, width, self.short_sides[index], self.long_side)
        turns = self._turns(torch.rand(2, generator=generator, dtype=torch.float64).tolist())
        own = (width, height) if turns % 2 else (height, width)
        if boxes is not None:
            boxes = turned_boxes(boxes, (height, width), turns)
        crop = self._crop(own, boxes, generator)
        place = cropped(frame, own, crop) if crop else self._place(frame, own, turns, drawn)
        return SampledTransform(
            frame,
            flipped,
            place.size[::-1] if turns % 2 else place.size,
            place.offset,
            drawn[0] < self.upend,
            self._colors(drawn[5:]),
            turns,
            place.window,
        )

    def _crop(self, own: Pair, boxes: Tensor | None, generator: torch.Generator) -> Crop | None:
        if boxes is None or float(torch.rand((), generator=generator)) >= self.iou_crop:
            return None
        return draw_crop(own, boxes, int(torch.randint(2**62, (), generator=generator)))

    def _place(self, frame: Pair, own: Pair, turns: int, drawn: list[float]) -> Placement:
        """The whole image, perhaps at another scale."""
        place = fitted(frame, own) if turns % 2 else Placement(frame)
        if drawn[1] < self.ranges.jittered:
            return jittered(frame, place.size, self.ranges.scales, drawn[2:5])
        return place

    def _turns(self, drawn: list[float]) -> int:
        return 1 + int(3 * drawn[1]) if drawn[0] < self.turn else 0

    def _colors(self, drawn: list[float]) -> Colors:
        share, hue = self.ranges.colors, self.ranges.hue
        if not share:
            return UNCHANGED
        brightness, contrast, saturation = (1 + share * (2 * number - 1) for number in drawn[:3])
        return Colors(brightness, contrast, saturation, hue * (2 * drawn[3] - 1))


def train_transforms(recipe: Recipe) -> TransformSampler:
    """Build what training images go through: the recipe's short sides, augmentation and flips, with
    masks.
    """
    if recipe.augmentation == "none":
        return TransformSampler(recipe.short_sides, recipe.long_side, masks=True)
    return TransformSampler(
        recipe.short_sides,
        recipe.long_side,
        recipe.flip,
        masks=True,
        upend=recipe.vertical_flip,
        ranges=POLICIES[recipe.augmentation],
        turn=recipe.quarter_turns,
        iou_crop=recipe.iou_crop,
    )


def eval_transforms(recipe: Recipe) -> TransformSampler:
    """Build what scored images go through: the recipe's size, no flips, and no masks, which
    evaluation reads from the split.
    """
    return TransformSampler((recipe.image_size,), recipe.long_side)
