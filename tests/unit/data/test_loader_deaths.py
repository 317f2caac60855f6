"""Processes of loaders that are killed, all at once and at any time: one error, which comes where
the next batch is asked for.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from torch.utils.data import Dataset

from nas.data.dataloader import loading
from nas.data.loader_deaths import AttentiveLoader
from nas.errors import ProcessDied


class Numbers(Dataset[int]):
    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> int:
        time.sleep(0.01)
        return index


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What Python prints of errors that nobody can catch."""
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    yield seen
    assert seen == []


OTHERS: list[psutil.Process] = []  # of other tests, a database perhaps


@pytest.fixture(autouse=True)
def others() -> None:
    OTHERS[:] = psutil.Process().children()


def loaders() -> list[AttentiveLoader[int]]:
    """As a training has them: one to train, one to score."""
    return [AttentiveLoader(Numbers(), num_workers=2, persistent_workers=True) for _ in range(2)]


def kill(count: int) -> None:
    """Kill the loaders' processes, which nobody else may wait for."""
    children = [child for child in psutil.Process().children() if child not in OTHERS]
    assert len(children) == count
    for child in children:
        os.kill(child.pid, signal.SIGKILL)
    time.sleep(0.2)  # in which something else is done, without an error


def trained(train: AttentiveLoader[int], val: AttentiveLoader[int], batch: int) -> None:
    """Read both, and kill all when the training has so many batches."""
    with loading():
        batches, others = iter(train), iter(val)
        assert len(next(others)) == 1
        for number, _ in enumerate(batches):
            if number == batch:
                kill(4)


@pytest.mark.usefixtures("unraisable")
@pytest.mark.parametrize("batch", [0, 1, 30])
def test_those_who_die_together_are_one_error(batch: int):
    began_s = time.monotonic()
    with pytest.raises(ProcessDied, match="died by signal 9"):
        trained(*loaders(), batch)
    assert time.monotonic() - began_s < 60  # PyTorch itself looks after ten minutes
    with loading():  # the next training in this process
        assert sum(1 for _ in AttentiveLoader(Numbers(), num_workers=1)) == 100


@pytest.mark.usefixtures("unraisable")
def test_a_death_while_a_batch_is_waited_for_is_heard_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Numbers, "__getitem__", lambda self, index: time.sleep(600))
    (train, _), began_s = loaders(), time.monotonic()
    batches = iter(train)
    threading.Timer(0.5, kill, (2,)).start()
    with pytest.raises(ProcessDied, match="died by signal 9"), loading():
        next(batches)
    assert time.monotonic() - began_s < 60


def test_nobody_else_hears_of_children():
    before = signal.getsignal(signal.SIGCHLD)
    batches = iter(AttentiveLoader(Numbers(), num_workers=1))
    assert signal.getsignal(signal.SIGCHLD) == before
    next(batches)
    assert signal.getsignal(signal.SIGCHLD) == before
