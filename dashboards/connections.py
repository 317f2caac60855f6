"""Who is connected: nobody keeps others out by being slow or by coming often."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

MOST = 64  # connections whose request is not there yet
MOST_OF_ONE = 48  # of them from one address, which may be a proxy's
MOST_ANSWERED = 128  # at once; each has a thread
ASK_S = 20  # until a request is there
ANSWER_S = 300  # until its answer has been taken


@dataclass
class _Connection:
    socket: socket.socket
    address: str
    since_s: float
    answering: bool = False


class Connections:
    """The open connections of a server. Where one too many comes, the oldest goes whose request is
    not there yet: a new one that asks at once is answered before its turn to go comes. What is
    answered is never dropped before its time.

    Args:
        most: connections whose request is not there yet.
        most_of_one: of them from one address.
        ask_s: how long a request may take to arrive, whatever trickles in meanwhile.
        answer_s: how long an answer may take to be made and taken.
    """

    def __init__(
        self,
        most: int = MOST,
        most_of_one: int = MOST_OF_ONE,
        *,
        ask_s: float = ASK_S,
        answer_s: float = ANSWER_S,
    ) -> None:
        self.most, self.most_of_one = most, most_of_one
        self.ask_s, self.answer_s = ask_s, answer_s
        self._open: dict[int, _Connection] = {}
        self._lock = threading.Lock()

    def open(self, connection: socket.socket, address: str) -> None:
        """Take one in, and drop others where it is one too many."""
        with self._lock:
            known = _Connection(connection, address, time.monotonic())
            self._open[id(connection)] = known
            asking = [each for each in self._open.values() if not each.answering]
            by_address = Counter(each.address for each in asking)
            if len(self._open) - len(asking) >= MOST_ANSWERED:
                self._drop(known)
            elif by_address[address] > self.most_of_one:
                self._drop_oldest(asking, address)
            elif len(asking) > self.most:
                self._drop_oldest(asking, by_address.most_common(1)[0][0])

    def answering(self, connection: socket.socket) -> None:
        """Its request is there."""
        with self._lock:
            if known := self._open.get(id(connection)):
                known.answering, known.since_s = True, time.monotonic()

    def forget(self, connection: socket.socket) -> None:
        """It has ended."""
        with self._lock:
            self._open.pop(id(connection), None)

    def close_late(self) -> None:
        """Drop those whose time is over."""
        now_s = time.monotonic()
        with self._lock:
            for each in list(self._open.values()):
                if now_s - each.since_s > (self.answer_s if each.answering else self.ask_s):
                    self._drop(each)

    def _drop_oldest(self, asking: list[_Connection], address: str) -> None:
        mine = [each for each in asking if each.address == address]
        self._drop(min(mine, key=lambda each: each.since_s))

    def _drop(self, known: _Connection) -> None:
        """End both directions, at which the thread that waits for it ends."""
        self._open.pop(id(known.socket), None)
        with suppress(OSError, ValueError):
            known.socket.shutdown(socket.SHUT_RDWR)
