"""Data loaders: batches of a split, decoded in processes of their own, and their errors."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Sampler

from nas.config.recipe import Recipe
from nas.data.coco import CocoSplit
from nas.data.dataset import Batch, DetectionDataset, DetectionItem, Item
from nas.data.loader_deaths import AttentiveLoader, forget_deaths
from nas.data.transforms import TransformSampler
from nas.errors import DataError, ProcessDied
from nas.utils.formatting import MIB
from nas.utils.process_death import memory_text, signal_text

SHARED_MEMORY = Path("/dev/shm")
IN_FLIGHT = 2 * 3  # batches of a process: two are ready, one is read; of training and of scoring
WAIT_S = 600  # for a batch, before the loader is given up
_DIED = re.compile(
    r"DataLoader worker \(pid.*?\d\) (?:is killed by signal: ([^.]+)|exited unexpectedly)"
)


def loader_workers(recipe: Recipe, device: torch.device, most: int = 4) -> int:
    """Decide how many processes decode images: what the recipe says, or for `auto` up to `most`
    beside a GPU, as far as shared memory holds their batches, and none on the CPU, where training
    needs the cores itself.

    Raises:
        DataError: shared memory does not hold the batches of as many as the recipe says.
    """
    side, long_side = max(recipe.short_sides), recipe.long_side
    of_one = IN_FLIGHT * recipe.images_at_once(1) * 3 * side * long_side  # 8 bits a channel
    free_bytes = shared_memory_bytes()
    if recipe.loader_workers == "auto":
        wanted = min(most, os.cpu_count() or 1) if device.type == "cuda" else 0
        return wanted if free_bytes is None else min(wanted, free_bytes // of_one)
    if free_bytes is not None and recipe.loader_workers * of_one > free_bytes:
        raise DataError(
            f"recipe.loader_workers: the batches of {recipe.loader_workers} processes need "
            f"{recipe.loader_workers * of_one // MIB} MiB of {SHARED_MEMORY}, which has "
            f"{free_bytes // MIB} free: fewer processes, or a container with more "
            "(docker run --shm-size)"
        )
    return recipe.loader_workers


def shared_memory_bytes() -> int | None:
    """What is free where processes hand tensors to each other; None where that is not a folder."""
    try:
        return shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return None


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
    return AttentiveLoader(
        DetectionDataset(split, transform, cache_bytes),
        batch_sampler=batches,
        collate_fn=_collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=workers > 0 and torch.cuda.is_available(),
        timeout=WAIT_S if workers else 0,
    )


@contextmanager
def loading() -> Iterator[None]:
    """Take the traceback off the text of a `DataError` that comes from a loader's process, and say
    what ended a loader's process.

    Raises:
        DataError: the block's, with its own one line of text.
        ProcessDied: a process of a loader died.
    """
    try:
        yield
    except DataError as error:
        raise DataError(str(error).strip().splitlines()[-1].rpartition("DataError: ")[2]) from None
    except RuntimeError as error:
        if not (died := _DIED.search(f"{error.__cause__} {error}")):
            raise
        forget_deaths()
        raise ProcessDied(f"a process that reads images died{_by_signal(died[1])}") from error


def _by_signal(name: str | None) -> str:
    """`Killed`, as the system describes a signal and PyTorch passes it on, as a signal's number."""
    numbers = [each for each in signal.Signals if signal.strsignal(each) == name]
    return f" by {signal_text(numbers[0])}" if numbers else f", {memory_text()}"


def _collate(items: list[DetectionItem]) -> Batch:
    images, targets, draws = zip(*items, strict=True)
    return Batch(list(images), list(targets), draws)
