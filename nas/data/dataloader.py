"""From a split to batches: loaders, and what goes wrong in their processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from nas.config.recipe import Recipe
from nas.data.coco import CocoSplit
from nas.data.dataset import (
    Batch,
    DetectionDataset,
    ResizeFlip,
    SampledTransform,
    Target,
)
from nas.errors import DataError


def loader_workers(recipe: Recipe, device: torch.device, most: int = 4) -> int:
    """Processes that decode images: none beside training on the CPU, which needs the cores
    itself.
    """
    if recipe.loader_workers != "auto":
        return recipe.loader_workers
    return min(most, os.cpu_count() or 1) if device.type == "cuda" else 0


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
