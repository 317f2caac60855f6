"""A database that is away for a while, and an end that comes in the middle of a call to it: Ctrl-C,
or SIGTERM.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from types import FrameType
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import InterfaceError, OperationalError

from nas.errors import StudyError

AWAY = (StorageInternalError, OperationalError, InterfaceError)
ENDS = (signal.SIGINT, signal.SIGTERM)
PAUSES_S = (
    1,
    2,
    4,
    8,
    15,
    30,
    30,
    30,
)  # two minutes, then the search ends; the same command goes on


class ReportsOutages(Protocol):
    """Whose calls wait for the database."""

    def on_away(self, reason: str, pause_s: float) -> None:
        """Told before each pause."""


Self = TypeVar("Self", bound=ReportsOutages)
P = ParamSpec("P")
R = TypeVar("R")


def retry_while_unreachable(
    method: Callable[Concatenate[Self, P], R],
) -> Callable[Concatenate[Self, P], R]:
    """Repeat a method while the database is away, uninterrupted each time. The method must bear
    being repeated.

    Raises:
        StudyError: by then it is away for two minutes.
    """

    @wraps(method)
    def call(self: Self, *args: P.args, **kwargs: P.kwargs) -> R:
        for pause_s in PAUSES_S:
            try:
                with defer_signals():
                    return method(self, *args, **kwargs)
            except AWAY as error:
                self.on_away(_cause(error), pause_s)
                time.sleep(pause_s)
        try:
            with defer_signals():
                return method(self, *args, **kwargs)
        except AWAY as error:
            raise StudyError(
                f"the database has been away for {sum(PAUSES_S)} s ({_cause(error)}); the same "
                "command goes on where this one "
                "stopped"
            ) from error

    return call


@contextmanager
def defer_signals() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the block has ended; inside a call SQLAlchemy would report
    them as a fault of the connection.

    Only the main thread is ever interrupted; elsewhere this does nothing.
    """
    came: list[int] = []
    with _handling(ENDS, lambda number, frame: came.append(number)):
        yield
    if came:
        signal.raise_signal(came[0])


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM is Ctrl-C inside: it comes from `nas stop`, from job systems and before a machine is
    taken away, and it reaches processes in the background too, for which shells have SIGINT
    ignored.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handling((signal.SIGTERM,), interrupt):
        yield


@contextmanager
def _handling(
    signals: Sequence[signal.Signals], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Another handler for a while; outside the main thread, which cannot have any, the same
    ones.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, handled in before.items():
            signal.signal(number, signal.SIG_DFL if handled is None else handled)


def _cause(error: Any) -> str:
    """The driver's own words: the first line of the innermost error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]
