"""Images, boxes and masks of a split as training and evaluation take them, one by one and in
batches.

An item is asked for by (index, seed): what augmentation draws depends on that pair alone, so that a
run that was interrupted, or one with another number of loader workers, sees the same pixels. Images
leave the loader as 8-bit pixels at their largest size; they are resized further, flipped and made
floating point on the device that trains.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import BoundingBoxFormat

from nas.data.coco import CocoSplit
from nas.data.image_cache import PixelCache
from nas.data.masks import rasterize
from nas.data.packing import Form, pack, unpack
from nas.data.sampled_transform import SampledTransform
from nas.data.training_size import MIN_BOX_SIDE
from nas.data.transforms import TransformSampler

Target = dict[str, Tensor]
Item = tuple[int, int]  # index of the image, seed of its augmentation
DetectionItem = tuple[Tensor, Target, SampledTransform]
LEAST_VISIBLE = 0.3  # share of an object; of less nobody can say what it is


@dataclass(frozen=True)
class Batch:
    """Images and targets of one step.

    As they come from a loader, images are 8-bit and `draws` says what is to be done with them;
    after `to` they are float32 in 0 to 1. Targets are those of the images as they will be.

    Args:
        images: [3, H_i, W_i] each.
        targets: for each image `boxes` [N, 4] as x1, y1, x2, y2 in pixels, `labels` [N] from 1,
            `image_id` []; where the split has masks also `masks` [N, H_i, W_i] of 0 and 1, uint8,
            all 0 for a box without one.
        draws: for each image how it is to be transformed; empty when that is done.
    """

    images: list[Tensor]
    targets: list[Target]
    draws: tuple[SampledTransform, ...] = ()

    def to(self, device: torch.device) -> Batch:
        """Move the batch to a device and transform its images there."""
        images = [image.to(device, non_blocking=True) for image in self.images]
        if self.draws:
            images = [draw.apply(image) for image, draw in zip(images, self.draws, strict=True)]
        return Batch(
            images,
            [
                {k: v.to(device, non_blocking=True) for k, v in target.items()}
                for target in self.targets
            ],
        )

    def pin_memory(self) -> Batch:
        """Copy the batch to memory that a GPU reads while it computes; `DataLoader` calls this."""
        targets = [
            {key: value.pin_memory() for key, value in target.items()} for target in self.targets
        ]
        return Batch([image.pin_memory() for image in self.images], targets, self.draws)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle all tensors as one, which is how a batch leaves a loader's process."""
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


class DetectionDataset(Dataset[DetectionItem]):
    """The images of a split with their boxes, asked for by (index, seed of the augmentation).

    Crowd boxes are left out; evaluation reads them from the split.

    Args:
        split: images and boxes.
        transform: how images are resized and flipped.
        cache_bytes: what decoded images may take of this machine's disk (see `PixelCache`).
    """

    def __init__(self, split: CocoSplit, transform: TransformSampler, cache_bytes: int = 0) -> None:
        self.split, self.transform = split, transform
        self.with_masks = transform.masks and split.has_masks
        self.pixels = PixelCache(split, *transform.cached_sides, cache_bytes)
        objects = split.boxes.objects
        position = {image.id: index for index, image in enumerate(split.images)}
        of_image = objects.by_image(position)
        # The boxes of all images, one image after the other, as x1, y1, x2, y2.
        self.objects = objects.select(np.argsort(of_image, kind="stable"))
        self.boxes = torch.from_numpy(self.objects.bboxes).float()
        self.boxes[:, 2:] += self.boxes[:, :2]
        label_of = split.labels
        labels = [label_of[kind] for kind in self.objects.category_ids.tolist()]
        self.labels = torch.tensor(labels, dtype=torch.int64)
        counts = np.bincount(of_image, minlength=len(split.images))
        self.ends = [0, *counts.cumsum().tolist()]

    def __len__(self) -> int:
        return len(self.split.images)

    def __getitem__(self, item: Item) -> DetectionItem:
        """Read an image and draw its augmentation.

        Returns:
            The image as it is cached, [3, H, W], uint8; its target as it will be once the draw is
            applied; the draw.

        Raises:
            DataError: the image cannot be decoded any more.
        """
        index, seed = item
        target, draw = self.target(index, seed)
        return self.pixels.read(index), target, draw

    def target(self, index: int, seed: int) -> tuple[Target, SampledTransform]:
        """Draw the augmentation of an image and give its target as it will be, without its pixels;
        arguments as those of an item.
        """
        record = self.split.images[index]
        boxes = self.boxes[self.ends[index] : self.ends[index + 1]]
        draw = self.transform.sample(record.height, record.width, seed, boxes)
        return self._target(index, draw), draw

    def _target(self, index: int, draw: SampledTransform) -> Target:
        record, mine = self.split.images[index], slice(self.ends[index], self.ends[index + 1])
        whole, _ = F.resize_bounding_boxes(
            self.boxes[mine], (record.height, record.width), list(draw.whole)
        )
        placed = draw.place_boxes(whole)
        boxes, wide = F.sanitize_bounding_boxes(
            draw.cut_boxes(placed),
            BoundingBoxFormat.XYXY,
            draw.size,
            MIN_BOX_SIDE,
        )
        seen = _learned(placed[wide], boxes, draw)
        wide[wide.clone()] = seen
        target = {
            "boxes": boxes[seen],
            "labels": self.labels[mine][wide],
            "image_id": torch.tensor(record.id),
        }
        if self.with_masks:
            kept = itertools.compress(range(mine.start, mine.stop), wide.tolist())
            segmentations = [self.objects.segmentation(index) for index in kept]
            masks = rasterize(segmentations, (record.height, record.width), draw.whole)
            target["masks"] = draw.place(masks)
        return target


def _learned(whole: Tensor, cut: Tensor, draw: SampledTransform) -> Tensor:
    """Whether enough is left of each box: in a crop around objects SSD's rule, its centre."""
    if not draw.window:
        return visible_share(whole, cut) >= LEAST_VISIBLE
    x1, y1, x2, y2 = draw.visible
    x, y = ((whole[:, :2] + whole[:, 2:]) / 2).unbind(dim=1)
    return (x1 < x) & (x < x2) & (y1 < y) & (y < y2)


def visible_share(whole: Tensor, cut: Tensor) -> Tensor:
    """Share of the area of boxes [N, 4] that is left of them [N], 0 to 1."""
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(dim=1) for boxes in (cut, whole)]
    return areas[0] / areas[1]
