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
    seeded,
    train_transform,
)
from nas.data.dataset import Item
from nas.data.image_folder import LabelledImages
from nas.data.image_io import broken_image_as_data_error, read_rgb
from nas.data.samplers import DistributedBatchSampler, GroupedBatchSampler
from nas.utils.distributed import World


@dataclass(frozen=True)
class ImageBatch:
    """Images [B, 3, S, S] and their classes [B], from 0.

    As they come from a loader, images are 8-bit; after `to` they are float in 0 to 1 and, where
    `mixed` names the seed of the draw, blended in pairs: targets are then shares of the classes,
    [B, classes].
    """

    images: Tensor
    targets: Tensor
    classes: int
    mixed: int | None = None

    def to(self, device: torch.device) -> ImageBatch:
        """The batch on a device, as the network wants it."""
        images = F.to_dtype_image(
            self.images.to(device, non_blocking=True), torch.float32, scale=True
        )
        targets = self.targets.to(device, non_blocking=True)
        if self.mixed is not None:
            with seeded(self.mixed):
                images, targets = mixup_or_cutmix(self.classes)(images, targets)
        return ImageBatch(images, targets, self.classes)

    def pin_memory(self) -> ImageBatch:
        """Where a device can fetch it while it does something else; `DataLoader` calls this."""
        return ImageBatch(
            self.images.pin_memory(), self.targets.pin_memory(), self.classes, self.mixed
        )


class ImageDataset(Dataset):
    """Images of a split as `transform` shows them, asked for by (index, seed of the draws)."""

    def __init__(self, split: LabelledImages, transform: v2.Transform) -> None:
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split.files)

    def __getitem__(self, item: Item) -> tuple[Tensor, int, int]:
        """The image, uint8; its class; the seed.

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

    def __call__(self, items: list[tuple[Tensor, int, int]]) -> ImageBatch:
        images, labels, seeds = zip(*items, strict=True)
        return ImageBatch(
            torch.stack(images),
            torch.tensor(labels),
            self.classes,
            seeds[0] + 1 if self.mixing else None,
        )


class SequentialBatchSampler(Sampler):
    """Every image once, of several processes each has every `world.size`-th."""

    def __init__(self, count: int, size: int, world: World) -> None:
        mine = [(index, 0) for index in range(world.rank, count, world.size)]
        self.batches = [mine[start : start + size] for start in range(0, len(mine), size)]

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
) -> DataLoader:
    """Augmented batches in the order of `order`."""
    return _loader(
        ImageDataset(split, train_transform(recipe)),
        order,
        _Collate(classes, recipe.augment == "strong"),
        workers,
    )


def eval_loader(
    split: LabelledImages, classes: int, recipe: PretrainingRecipe, world: World, workers: int
) -> DataLoader:
    """Central crops of this process's share."""
    order = SequentialBatchSampler(len(split.files), recipe.micro_batch_size, world)
    return _loader(
        ImageDataset(split, eval_transform(recipe)), order, _Collate(classes, False), workers
    )


def train_order(
    split: LabelledImages, recipe: PretrainingRecipe, world: World, seed: int
) -> GroupedBatchSampler:
    """The order of training, of all processes together."""
    return GroupedBatchSampler([range(len(split.files))], recipe.images_at_once(world.size), seed)


def _loader(dataset: ImageDataset, order: Sampler, collate: _Collate, workers: int) -> DataLoader:
    return DataLoader(
        dataset,
        batch_sampler=order,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=workers > 0 and torch.cuda.is_available(),
    )
