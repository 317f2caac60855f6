"""Batches of labelled images, in an order and with draws that depend on the seed alone (see
`nas.data.dataset`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from nas.config.pretraining import PretrainingRecipe
from nas.data.classification_transforms import (
    eval_transform,
    mixup_or_cutmix,
    train_transform,
)
from nas.data.dataset import Item
from nas.data.image_folder import LabelledImages
from nas.data.image_io import broken_image_as_data_error, read_rgb
from nas.data.loader_deaths import AttentiveLoader
from nas.data.samplers import DistributedBatchSampler, GroupedBatchSampler
from nas.data.seeding import seeded
from nas.utils.distributed import World

LabelledItem = tuple[Tensor, int, int]  # image, class, seed of the augmentation


@dataclass(frozen=True)
class ImageBatch:
    """Images and classes of one step.

    As they come from a loader, images are 8-bit; after `to` they are float32 in 0 to 1 and, where
    `mixed` is given, blended in pairs.

    Args:
        images: [B, 3, S, S].
        targets: class of each image, [B], from 0; of blended images shares, [B, classes].
        classes: number of classes.
        mixed: seed that images are blended with; None: they are not.
    """

    images: Tensor
    targets: Tensor
    classes: int
    mixed: int | None = None

    def to(self, device: torch.device) -> ImageBatch:
        """Move the batch to a device, convert its images and blend them there."""
        images = F.to_dtype_image(
            self.images.to(device, non_blocking=True), torch.float32, scale=True
        )
        targets = self.targets.to(device, non_blocking=True)
        if self.mixed is not None:
            with seeded(self.mixed):
                images, targets = mixup_or_cutmix(self.classes)(images, targets)
        return ImageBatch(images, targets, self.classes)

    def pin_memory(self) -> ImageBatch:
        """Copy the batch to memory that a GPU reads while it computes; `DataLoader` calls this."""
        return ImageBatch(
            self.images.pin_memory(), self.targets.pin_memory(), self.classes, self.mixed
        )


class ImageDataset(Dataset[LabelledItem]):
    """The images of a split after a transform, asked for by (index, seed of what it draws).

    Args:
        split: image files and their classes.
        transform: takes and gives uint8 images, [3, H, W].
    """

    def __init__(self, split: LabelledImages, transform: v2.Transform) -> None:
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split.files)

    def __getitem__(self, item: Item) -> LabelledItem:
        """Read and transform an image.

        Returns:
            The image, [3, S, S], uint8; its class, from 0; the seed.

        Raises:
            DataError: the image cannot be decoded any more.
        """
        index, seed = item
        path = self.split.folder / self.split.files[index]
        with broken_image_as_data_error(path):
            image = F.pil_to_tensor(read_rgb(path, None))
        with seeded(seed):
            return self.transform(image), self.split.labels[index], seed


@dataclass(frozen=True)
class _Collate:
    classes: int
    mixing: bool

    def __call__(self, items: list[LabelledItem]) -> ImageBatch:
        images, labels, seeds = zip(*items, strict=True)
        return ImageBatch(
            torch.stack(images),
            torch.tensor(labels),
            self.classes,
            seeds[0] + 1 if self.mixing else None,
        )


class SequentialBatchSampler(Sampler[list[Item]]):
    """A sampler that gives every image once, in their order, without augmentation; of several
    processes, each has every `world.size`-th image.

    Args:
        count: images of the split.
        size: images of one batch; the last one may have fewer.
        world: this process among those that score together.
    """

    def __init__(self, count: int, size: int, world: World) -> None:
        items = [(index, 0) for index in range(world.rank, count, world.size)]
        self.batches = [items[start : start + size] for start in range(0, len(items), size)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Item]]:
        return iter(self.batches)


def train_loader(
    split: LabelledImages,
    classes: int,
    recipe: PretrainingRecipe,
    order: DistributedBatchSampler,
    workers: int,
) -> DataLoader[LabelledItem]:
    """Build the loader of augmented training batches.

    Args:
        split: image files and their classes.
        classes: number of classes.
        recipe: crops, flips and augmentation.
        order: gives the batches of this process.
        workers: processes that decode images; 0 decodes in this one.
    """
    return _loader(
        ImageDataset(split, train_transform(recipe)),
        order,
        _Collate(classes, recipe.augment == "strong"),
        workers,
    )


def eval_loader(
    split: LabelledImages, classes: int, recipe: PretrainingRecipe, world: World, workers: int
) -> DataLoader[LabelledItem]:
    """Build the loader of central crops of this process's share of a split.

    Args:
        split: image files and their classes.
        classes: number of classes.
        recipe: size of the crops and of the batches.
        world: this process among those that score together.
        workers: processes that decode images; 0 decodes in this one.
    """
    order = SequentialBatchSampler(len(split.files), recipe.micro_batch_size, world)
    return _loader(
        ImageDataset(split, eval_transform(recipe)), order, _Collate(classes, False), workers
    )


def train_order(
    split: LabelledImages, recipe: PretrainingRecipe, world: World, seed: int
) -> GroupedBatchSampler:
    """Build the sampler of training batches, of all processes together, shuffled by `seed`."""
    return GroupedBatchSampler([range(len(split.files))], recipe.images_at_once(world.size), seed)


def _loader(
    dataset: ImageDataset, order: Sampler[list[Item]], collate: _Collate, workers: int
) -> DataLoader[LabelledItem]:
    return AttentiveLoader(
        dataset,
        batch_sampler=order,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=workers > 0 and torch.cuda.is_available(),
    )
