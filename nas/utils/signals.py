"""Signals that wait for the end of a block, and SIGTERM as Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

ENDS = (signal.SIGINT, signal.SIGTERM)


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

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handling((signal.SIGTERM,), interrupt):
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
