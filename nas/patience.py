"""A database that is away for a while, and Ctrl-C in the middle of a call to it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import InterfaceError, OperationalError

from nas.errors import StudyError

AWAY = (StorageInternalError, OperationalError, InterfaceError)
PAUSES_S = (1, 2, 4, 8, 15, 30, 30, 30)  # two minutes, then the search ends; the same command goes on


class Waiting(Protocol):
    """Whose calls are patient."""

    def on_away(self, reason: str, pause_s: float) -> None:
        """Told before each pause."""


Self = TypeVar("Self", bound=Waiting)
P = ParamSpec("P")
R = TypeVar("R")


def patient(method: Callable[Concatenate[Self, P], R]) -> Callable[Concatenate[Self, P], R]:
    """Repeat a method while the database is away, uninterrupted each time. The method must bear being repeated.

    Raises:
        StudyError: by then it is away for two minutes.
    """

    @wraps(method)
    def call(self: Self, *args: P.args, **kwargs: P.kwargs) -> R:
        for pause_s in PAUSES_S:
            try:
                with interrupts_wait():
                    return method(self, *args, **kwargs)
            except AWAY as error:
                self.on_away(_cause(error), pause_s)
                time.sleep(pause_s)
        try:
            with interrupts_wait():
                return method(self, *args, **kwargs)
        except AWAY as error:
            raise StudyError(
                f"the database has been away for {sum(PAUSES_S)} s ({_cause(error)}); the same command goes on where this one "
                "stopped"
            ) from error

    return call


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Hold Ctrl-C back until the block has ended; inside a call SQLAlchemy would report it as a fault of the connection.

    Only the main thread is ever interrupted; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)


def _cause(error: Any) -> str:
    """The driver's own words: the first line of the innermost error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]
