"""Data loaders: batches of a split, decoded in processes of their own, and their errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils.data import DataLoader, Sampler

from nas.config.recipe import Recipe
from nas.data.coco import CocoSplit
from nas.data.dataset import Batch, DetectionDataset, DetectionItem, Item
from nas.data.transforms import TransformSampler
from nas.errors import DataError


def loader_workers(recipe: Recipe, device: torch.device, most: int = 4) -> int:
    """Decide how many processes decode images: what the recipe says, or for `auto` up to `most`
    beside a GPU and none on the CPU, where training needs the cores itself.
    """
    if recipe.loader_workers != "auto":
        return recipe.loader_workers
    return min(most, os.cpu_count() or 1) if device.type == "cuda" else 0


def make_loader(
    split: CocoSplit,
    transform: TransformSampler,
    batches: Sampler[list[Item]],
    workers: int,
    cache_bytes: int = 0,
) -> DataLoader[DetectionItem]:
    """Build the loader of a split's batches.

    Args:
        split: images and boxes.
        transform: how images are resized and flipped.
        batches: gives for each batch a list of (index, seed).
        workers: processes that decode images; 0 decodes in this one.
        cache_bytes: what decoded images may take of this machine's disk.
    """
    return DataLoader(
        DetectionDataset(split, transform, cache_bytes),
        batch_sampler=batches,
        collate_fn=_collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=workers > 0 and torch.cuda.is_available(),
    )


@contextmanager
def loading() -> Iterator[None]:
    """Take the traceback off the text of a `DataError` that comes from a loader's process.

    Raises:
        DataError: the block's, with its own one line of text.
    """
    try:
        yield
    except DataError as error:
        raise DataError(str(error).strip().splitlines()[-1].rpartition("DataError: ")[2]) from None


def _collate(items: list[DetectionItem]) -> Batch:
    images, targets, draws = zip(*items, strict=True)
    return Batch(list(images), list(targets), draws)
