"""Deaths of a loader's processes, heard while a batch is waited for and at no other time.

PyTorch's handler of SIGCHLD raises an error wherever the program just is: while curves are drawn,
or while the processes that are left are taken down. So it is in force only here.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch.utils.data import DataLoader

Item_co = TypeVar("Item_co", covariant=True)
_handlers: list[Callable[[int, Any], object]] = []  # PyTorch's, which it sets once


class AttentiveLoader(DataLoader[Item_co]):
    """A loader of PyTorch's whose errors about its processes come with a batch alone."""

    def __iter__(self) -> Any:
        """Start the processes at once, and give the batches."""
        with _listening():
            batches = super().__iter__()
        return _each(batches)


def _each(batches: Iterator[Any]) -> Iterator[Any]:
    while True:
        with _listening():
            try:
                batch = next(batches)
            except StopIteration:
                return
        yield batch


@contextmanager
def _listening() -> Iterator[None]:
    """Have PyTorch's handler in force, where it has set one, and hear of deaths before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        if _handlers:
            signal.signal(signal.SIGCHLD, _handlers[0])
            _handlers[0](signal.SIGCHLD, None)
        yield
    finally:
        now = signal.getsignal(signal.SIGCHLD)
        if callable(now) and now is not before:
            _handlers[:] = [now]
            signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)


def forget_deaths() -> None:
    """Hear of all other processes that have died by now: they died together, and nobody asks for
    their batches any more.
    """
    while _handlers:
        try:
            _handlers[0](signal.SIGCHLD, None)
        except RuntimeError:
            continue
        return
