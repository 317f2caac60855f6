"""Ctrl-C that counts once."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from nas.utils.signals import END_S, interrupt_once, sigterm_as_interrupt


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_only_the_first_of_many_interrupts(monkeypatch: pytest.MonkeyPatch):
    now_s = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now_s[0])
    interrupt_once()
    with sigterm_as_interrupt():
        for first in (signal.SIGTERM, signal.SIGINT):
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(first)
            now_s[0] += END_S - 0.1
            signal.raise_signal(signal.SIGINT)  # either of them: the end has begun
            signal.raise_signal(signal.SIGTERM)
            now_s[0] += 0.1  # an end that hangs can be ended


def test_what_is_ignored_in_the_background_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupt_once()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    with pytest.raises(KeyboardInterrupt), sigterm_as_interrupt():
        signal.raise_signal(signal.SIGTERM)
