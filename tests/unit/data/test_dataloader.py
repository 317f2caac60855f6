"""How many processes decode images: never more than shared memory holds the batches of."""

from __future__ import annotations

import pytest
import torch

from nas.config.recipe import Recipe, load_recipe
from nas.data import dataloader
from nas.data.dataloader import IN_FLIGHT, loader_workers
from nas.errors import DataError

CPU, GPU = torch.device("cpu"), torch.device("cuda")
OF_ONE = IN_FLIGHT * 8 * 3 * 64 * 128  # bytes of a process


def recipe(workers: int | str) -> Recipe:
    changes = {"loader_workers": workers, "batch": 8, "image_size": 64, "max_size": 128}
    return Recipe.model_validate({**load_recipe("tiny"), "name": "tiny", **changes})


@pytest.fixture(autouse=True)
def _cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dataloader.os, "cpu_count", lambda: 8)


@pytest.mark.parametrize(
    ("free_bytes", "workers"), [(None, 4), (10 * OF_ONE, 4), (2 * OF_ONE, 2), (OF_ONE - 1, 0)]
)
def test_auto_takes_what_shared_memory_holds(
    monkeypatch: pytest.MonkeyPatch, free_bytes: int | None, workers: int
):
    monkeypatch.setattr(dataloader, "shared_memory_bytes", lambda: free_bytes)
    assert loader_workers(recipe("auto"), GPU) == workers
    assert loader_workers(recipe("auto"), CPU) == 0


def test_more_than_shared_memory_holds_is_refused_with_both_sizes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dataloader, "shared_memory_bytes", lambda: 4 * OF_ONE)
    assert loader_workers(recipe(4), CPU) == 4
    with pytest.raises(DataError, match=r"5 processes need 5 MiB of /dev/shm, which has 4 free"):
        loader_workers(recipe(5), CPU)
    monkeypatch.setattr(dataloader, "shared_memory_bytes", lambda: None)
    assert loader_workers(recipe(5), CPU) == 5
