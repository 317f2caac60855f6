"""Images and boxes as training and evaluation want them, and the batches they come in.

An item is asked for by (index, seed): what augmentation draws depends on that pair alone, so that a
run that was interrupted, or one with another number of loader workers, sees the same pixels. Images
leave the loader as 8-bit pixels at their largest size; they are resized further, flipped and made
floating point on the device that trains.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import BoundingBoxFormat

from nas.config.recipe import LARGEST_STRIDE, Recipe
from nas.data.coco import CocoSplit, ImageRecord
from nas.data.image_cache import PixelCache, resized
from nas.data.masks import rasterized
from nas.data.packing import Form, pack, unpack
from nas.errors import DataError
from nas.utils.distributed import World

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


class GroupedBatchSampler(Sampler):
    """Shuffled batches, each of images of one group.

    Every image comes once an epoch; the last batch of each group is filled up with images that come
    a second time, so that all batches have the same size. The order depends on (seed, epoch) alone;
    the first `skipped` batches of it are left out.

    Args:
        groups: indices of images.
        size: images of one batch.
        seed: of the run.
    """

    def __init__(self, groups: Iterable[Sequence[int]], size: int, seed: int) -> None:
        self.size, self.seed, self.epoch, self.skipped = size, seed, 0, 0
        self.groups = [group for group in groups if group]

    def __len__(self) -> int:
        return sum(math.ceil(len(group) / self.size) for group in self.groups)

    def __iter__(self) -> Iterator[list[Item]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        batches: list[list[int]] = []
        for group in self.groups:
            order = [group[i] for i in torch.randperm(len(group), generator=generator).tolist()]
            order += (order * self.size)[: -len(order) % self.size]
            batches += [
                order[start : start + self.size] for start in range(0, len(order), self.size)
            ]
        for place, position in enumerate(
            torch.randperm(len(batches), generator=generator).tolist()
        ):
            seeds = torch.randint(2**62, (self.size,), generator=generator).tolist()
            if place < self.skipped:
                continue
            yield list(zip(batches[position], seeds, strict=True))


class AspectRatioBatchSampler(GroupedBatchSampler):
    """Batches of portrait or of landscape images, never both: a mixed batch is padded to up to 1.68
    times the area.

    `images` are those of the split, in the order of the data set.
    """

    def __init__(self, images: Sequence[ImageRecord], size: int, seed: int) -> None:
        super().__init__(aspect_groups(images), size, seed)


class DistributedBatchSampler(Sampler):
    """One process's part of each batch of another sampler: the same batches, however many processes
    there are.

    Args:
        batches: of all processes together.
        world: which of them this is.
    """

    def __init__(self, batches: GroupedBatchSampler | EvalBatches, world: World) -> None:
        self.batches, self.world = batches, world

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Item]]:
        for batch in self.batches:
            part = math.ceil(self.batches.size / self.world.size)
            if mine := batch[part * self.world.rank : part * (self.world.rank + 1)]:
                yield mine


class EvalBatches(Sampler):
    """Every image once, neighbours alike in shape."""

    def __init__(self, images: Sequence[ImageRecord], size: int) -> None:
        self.size = size
        order = sorted(range(len(images)), key=lambda i: (images[i].height / images[i].width, i))
        self.batches = [
            [(index, 0) for index in order[start : start + size]]
            for start in range(0, len(order), size)
        ]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Item]]:
        return iter(self.batches)


def aspect_groups(images: Sequence[ImageRecord]) -> tuple[list[int], list[int]]:
    """Indices of the landscape (or square) images and of the portrait ones."""
    landscape = [index for index, image in enumerate(images) if image.width >= image.height]
    portrait = [index for index, image in enumerate(images) if image.width < image.height]
    return landscape, portrait


def make_loader(
    split: CocoSplit, view: ResizeFlip, batches: Sampler, workers: int, cache_bytes: int = 0
) -> DataLoader:
    """Batches of `split` in the order of `batches`."""
    return DataLoader(
        DetectionDataset(split, view, cache_bytes),
        batch_sampler=batches,
        collate_fn=_collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=workers > 0 and torch.cuda.is_available(),
    )


@contextmanager
def loading() -> Iterator[None]:
    """A `DataError` of a loader's process comes with a traceback in its text, which is taken
    off.
    """
    try:
        yield
    except DataError as error:
        raise DataError(str(error).strip().splitlines()[-1].rpartition("DataError: ")[2]) from None


def _collate(items: list[tuple[Tensor, Target, SampledTransform]]) -> Batch:
    images, targets, draws = zip(*items, strict=True)
    return Batch(list(images), list(targets), draws)


def largest_batch_shape(images: Sequence[ImageRecord], recipe: Recipe) -> tuple[int, int, int, int]:
    """[B, 3, H, W] of the largest batch that training can meet, padded to the stride as detectors
    pad it.

    A bound: the tallest and the widest image of an aspect group are taken to meet in one batch.
    """
    shapes = []
    for group in aspect_groups(images):
        sides = {(images[i].height, images[i].width) for i in group}
        sizes = [
            resized(h, w, short, recipe.long_side) for h, w in sides for short in recipe.short_sides
        ]
        if sizes:
            shapes.append(tuple(_padded(max(side)) for side in zip(*sizes, strict=True)))
    height, width = max(shapes, key=math.prod)
    return recipe.micro_batch_size, 3, height, width


def _padded(side: int) -> int:
    return math.ceil(side / LARGEST_STRIDE) * LARGEST_STRIDE
