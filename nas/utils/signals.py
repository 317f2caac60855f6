"""Signals that wait for the end of a block, SIGTERM as Ctrl-C, and Ctrl-C that counts once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

ENDS = (signal.SIGINT, signal.SIGTERM)
END_S = 10  # that an end may take: so long another Ctrl-C does not count


class OneInterrupt:
    """A handler of signals that raises `KeyboardInterrupt`, and takes no notice of the signals of
    the next ten seconds: they would cut short what the first one has begun to end.

    Raises:
        KeyboardInterrupt: the signal came, and none in the ten seconds before.
    """

    def __init__(self) -> None:
        self._raised_s = float("-inf")

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if time.monotonic() - self._raised_s >= END_S:
            self._raised_s = time.monotonic()
            raise KeyboardInterrupt


def interrupt_once() -> None:
    """Let impatient Ctrl-C count once, from now to the end of this process. Where it is ignored, as
    shells have it in the background, it stays so.
    """
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) != signal.SIG_IGN
    ):
        signal.signal(signal.SIGINT, OneInterrupt())


@contextmanager
def defer_signals() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the block has ended.

    Within a call of SQLAlchemy they would be reported as a fault of the connection. Only the main
    thread is ever interrupted; elsewhere this does nothing.
    """
    received: list[int] = []
    with _handling(ENDS, lambda number, frame: received.append(number)):
        yield
    if received:
        signal.raise_signal(received[0])


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Make SIGTERM a Ctrl-C within the block.

    It comes from `nas stop`, from job systems and before a machine is taken away, and it reaches
    processes in the background too, for which shells have SIGINT ignored.

    Raises:
        KeyboardInterrupt: SIGTERM came.
    """
    handler = signal.getsignal(signal.SIGINT)
    once = handler if isinstance(handler, OneInterrupt) else OneInterrupt()
    with _handling((signal.SIGTERM,), once):
        yield


@contextmanager
def _handling(
    signals: Sequence[signal.Signals], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Handle signals by `handler` within the block; outside the main thread, where Python cannot,
    leave them as they are.
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
