"""A database that is away for a while, and Ctrl-C in the middle of what must not be cut in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest
from optuna.exceptions import StorageInternalError

from nas.errors import StudyError
from nas.study.retry import PAUSES_S, retry_while_unreachable
from nas.utils.signals import defer_signals, sigterm_as_interrupt


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """Also where a shell has started the tests in the background, with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_comes_after_the_block(end: signal.Signals):
    done, before = [], signal.getsignal(signal.SIGTERM)

    @defer_signals()
    def block() -> None:
        signal.raise_signal(end)
        done.append("the rest")

    with pytest.raises(KeyboardInterrupt), sigterm_as_interrupt():
        block()
    assert done == ["the rest"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is before


def test_blocks_inside_blocks():
    done = []

    @defer_signals()
    def inner() -> None:
        signal.raise_signal(signal.SIGINT)
        done.append("inner")

    @defer_signals()
    def outer() -> None:
        inner()
        done.append("outer")

    with pytest.raises(KeyboardInterrupt):
        outer()
    assert done == ["inner", "outer"]


def test_nothing_changes_without_an_interrupt_or_in_another_thread():
    with defer_signals():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    failed = []

    def elsewhere() -> None:
        try:
            with defer_signals():
                pass
        except ValueError as error:  # signal.signal refuses other threads
            failed.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert not failed


class Asker:
    """Asks a database that is away the first few times."""

    def __init__(self, away: int) -> None:
        self.away, self.asked = away, 0
        self.heard: list[str] = []

    def on_away(self, reason: str, pause_s: float) -> None:
        self.heard.append(f"{reason} {pause_s}")

    @retry_while_unreachable
    def ask(self, value: int) -> int:
        self.asked += 1
        if self.asked <= self.away:
            raise StorageInternalError("An exception is raised during the commit.") from OSError(
                "server closed the connection"
            )
        return value

    @retry_while_unreachable
    def broken(self) -> None:
        self.asked += 1
        raise KeyError("a fault of the code")


def test_a_call_is_repeated_while_the_database_is_away(monkeypatch: pytest.MonkeyPatch):
    slept: list[float] = []
    monkeypatch.setattr("nas.study.retry.time.sleep", slept.append)
    asker = Asker(away=3)
    assert asker.ask(7) == 7
    assert slept == [1, 2, 4]
    assert asker.heard == [
        "server closed the connection 1",
        "server closed the connection 2",
        "server closed the connection 4",
    ]
    gone = Asker(away=99)
    said = (
        "the database has been away for 120 s .server closed the connection.; the same command "
        "goes on"
    )
    with pytest.raises(StudyError, match=said):
        gone.ask(7)
    assert gone.asked == len(PAUSES_S) + 1
    with pytest.raises(KeyError):
        (faulty := Asker(0)).broken()
    assert faulty.asked == 1


def test_an_interrupt_ends_the_waiting(monkeypatch: pytest.MonkeyPatch):
    def sleep(_: float) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("nas.study.retry.time.sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        Asker(away=9).ask(7)
