"""Images and boxes as training and evaluation want them, and the batches they come in.

An item is asked for by (index, seed): what augmentation draws depends on that pair alone, so that a
run that was interrupted, or one with another number of loader workers, sees the same pixels. Images
leave the loader as 8-bit pixels at their largest size; they are resized further, flipped and made
floating point on the device that trains.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import BoundingBoxFormat

from nas.config.recipe import Recipe
from nas.data.coco import CocoSplit
from nas.data.image_cache import PixelCache, resized
from nas.data.masks import rasterized
from nas.data.packing import Form, pack, unpack

Target = dict[str, Tensor]
Item = tuple[int, int]  # index of the image, seed of its augmentation
MIN_BOX_SIDE = 1.0  # pixels; in training narrower boxes are left out


@dataclass(frozen=True)
class ResizeFlip:
    """How images are shown: short sides in pixels to draw from, the limit of the long side, the
    probability of a flip, and whether targets have masks, where the split has them.
    """

    short_sides: tuple[int, ...]
    long_side: int
    flip: float = 0.0
    masks: bool = False


@dataclass(frozen=True)
class SampledTransform:
    """What was drawn for one image: its height and width in pixels, and whether left and right
    change places.
    """

    size: tuple[int, int]
    flipped: bool


@dataclass(frozen=True)
class Batch:
    """Images [3, H_i, W_i] and their targets: `boxes` [N, 4], `labels` [N] from 1, `image_id` [];
    `masks` [N, H_i, W_i] of 0 and 1, uint8, where the split has masks (that of a box without one is
    empty).

    As they come from a loader, images are 8-bit and `draws` says what is to be done with them;
    after `to` they are float in 0 to 1. Targets are those of the images as they will be.
    """

    images: list[Tensor]
    targets: list[Target]
    draws: tuple[SampledTransform, ...] = ()

    def to(self, device: torch.device) -> Batch:
        """The batch on a device, its draws carried out there."""
        images = [image.to(device, non_blocking=True) for image in self.images]
        if self.draws:
            images = [_shown(image, draw) for image, draw in zip(images, self.draws, strict=True)]
        return Batch(
            images,
            [
                {k: v.to(device, non_blocking=True) for k, v in target.items()}
                for target in self.targets
            ],
        )

    def pin_memory(self) -> Batch:
        """Where a device can fetch it while it does something else; `DataLoader` calls this."""
        targets = [
            {key: value.pin_memory() for key, value in target.items()} for target in self.targets
        ]
        return Batch([image.pin_memory() for image in self.images], targets, self.draws)

    def __reduce__(self) -> tuple[Any, ...]:
        """From a loader's process it comes in one piece."""
        tensors = [*self.images, *(value for target in self.targets for value in target.values())]
        return _unpacked, (*pack(tensors), [tuple(target) for target in self.targets], self.draws)


def _unpacked(
    packed: Tensor,
    forms: Sequence[Form],
    keys: Sequence[Sequence[str]],
    draws: tuple[SampledTransform, ...],
) -> Batch:
    tensors = iter(unpack(packed, forms))
    images = list(itertools.islice(tensors, len(keys)))
    return Batch(images, [{key: next(tensors) for key in of_one} for of_one in keys], draws)


def _shown(image: Tensor, draw: SampledTransform) -> Tensor:
    if image.shape[1:] != draw.size:
        image = F.resize_image(image, list(draw.size), antialias=True)
    if draw.flipped:
        image = F.horizontal_flip_image(image)
    return F.to_dtype_image(image, torch.float32, scale=True)


def train_view(recipe: Recipe) -> ResizeFlip:
    """Flips, a short side drawn from the recipe's, and masks."""
    return ResizeFlip(recipe.short_sides, recipe.long_side, recipe.flip, masks=True)


def eval_view(recipe: Recipe) -> ResizeFlip:
    """The recipe's size; evaluation reads masks from the split."""
    return ResizeFlip((recipe.image_size,), recipe.long_side)


class DetectionDataset(Dataset):
    """The images of a split with their boxes; crowd boxes are left out in training, evaluation
    reads them from the split.

    Args:
        split: images and boxes.
        view: how they are shown.
        cache_bytes: what decoded images may take of this machine's disk (see `PixelCache`).
    """

    def __init__(self, split: CocoSplit, view: ResizeFlip, cache_bytes: int = 0) -> None:
        self.split, self.view = split, view
        self.with_masks = view.masks and split.has_masks
        self.pixels = PixelCache(split, max(view.short_sides), view.long_side, cache_bytes)
        index = {image.id: place for place, image in enumerate(split.images)}
        found = sorted(
            (box for box in split.boxes if not box.iscrowd), key=lambda box: index[box.image_id]
        )
        self.boxes = torch.tensor([box.bbox for box in found], dtype=torch.float32).reshape(
            -1, 4
        )  # of all images, one after
        self.boxes[:, 2:] += self.boxes[:, :2]  # the other, in xyxy
        self.labels = torch.tensor(
            [split.labels[box.category_id] for box in found], dtype=torch.int64
        )
        self.segmentations = [box.segmentation for box in found] if self.with_masks else []
        counts = Counter(box.image_id for box in found)
        self.ends = list(
            itertools.accumulate((counts[image.id] for image in split.images), initial=0)
        )

    def __len__(self) -> int:
        return len(self.split.images)

    def __getitem__(self, item: Item) -> tuple[Tensor, Target, SampledTransform]:
        """Raises `DataError` where the image cannot be decoded any more."""
        index, seed = item
        record, generator = self.split.images[index], torch.Generator().manual_seed(seed)
        short_side = self.view.short_sides[
            int(torch.randint(len(self.view.short_sides), (), generator=generator))
        ]
        flipped = float(torch.rand((), generator=generator)) < self.view.flip
        draw = SampledTransform(
            resized(record.height, record.width, short_side, self.view.long_side), flipped
        )
        return self.pixels.read(index), self._target(index, draw), draw

    def _target(self, index: int, draw: SampledTransform) -> Target:
        record, mine = self.split.images[index], slice(self.ends[index], self.ends[index + 1])
        boxes, _ = F.resize_bounding_boxes(
            self.boxes[mine], (record.height, record.width), list(draw.size)
        )
        if draw.flipped:
            boxes = F.horizontal_flip_bounding_boxes(boxes, BoundingBoxFormat.XYXY, draw.size)
        boxes, wide = F.sanitize_bounding_boxes(
            boxes, BoundingBoxFormat.XYXY, draw.size, MIN_BOX_SIDE
        )
        target = {
            "boxes": boxes,
            "labels": self.labels[mine][wide],
            "image_id": torch.tensor(record.id),
        }
        if self.with_masks:
            kept = itertools.compress(self.segmentations[mine], wide.tolist())
            masks = rasterized(list(kept), (record.height, record.width), draw.size)
            target["masks"] = masks.flip(-1) if draw.flipped else masks
        return target
