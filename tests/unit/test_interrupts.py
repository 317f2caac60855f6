"""Ctrl-C in the middle of what must not be cut in two."""

from __future__ import annotations

import signal
import threading

import pytest

from nas.interrupts import interrupts_wait


def test_an_interrupt_comes_after_the_block():
    done = []

    @interrupts_wait()
    def block() -> None:
        signal.raise_signal(signal.SIGINT)
        done.append("the rest")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert done == ["the rest"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_blocks_inside_blocks():
    done = []

    @interrupts_wait()
    def inner() -> None:
        signal.raise_signal(signal.SIGINT)
        done.append("inner")

    @interrupts_wait()
    def outer() -> None:
        inner()
        done.append("outer")

    with pytest.raises(KeyboardInterrupt):
        outer()
    assert done == ["inner", "outer"]


def test_nothing_changes_without_an_interrupt_or_in_another_thread():
    with interrupts_wait():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    failed = []

    def elsewhere() -> None:
        try:
            with interrupts_wait():
                pass
        except ValueError as error:  # signal.signal refuses other threads
            failed.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert not failed
