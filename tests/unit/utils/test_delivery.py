"""Jobs in a thread of their own: in order, repeated while they fail, and never waited for long."""

from __future__ import annotations

import threading
import time

import pytest
from helpers.commands import wait_until

from nas.utils import delivery
from nas.utils.delivery import Delivery


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(delivery, "LONGEST_PAUSE_S", 0.01)
    monkeypatch.setattr(delivery, "LAST_S", 0.2)


class Server:
    """Takes notes, once it is there."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self.tries = 0
        self.is_there = threading.Event()

    def hear(self, number: int) -> None:
        self.tries += 1
        if not self.is_there.is_set():
            raise ConnectionError("away")
        self.heard.append(number)


def added(server: Server, numbers: range) -> Delivery:
    made = Delivery()
    for number in numbers:
        made.add(lambda number=number: server.hear(number))
    return made


def test_jobs_wait_in_their_order_until_they_succeed():
    server = Server()
    waiting = added(server, range(50))
    wait_until(lambda: server.tries > 3)
    assert str(waiting.trouble) == "away"
    server.is_there.set()
    wait_until(lambda: len(server.heard) == 50)
    assert waiting.trouble is None
    waiting.add(lambda: server.hear(50))
    assert waiting.close()
    assert server.heard == list(range(51))


def test_one_failure_is_no_trouble():
    server = Server()
    waiting = added(server, range(1))
    wait_until(lambda: server.tries)
    server.is_there.set()
    troubles = set()
    while not server.heard:
        troubles.add(waiting.trouble if server.tries < 2 else None)
    assert troubles == {None}
    assert waiting.close()


def test_the_end_is_one_last_try():
    server = Server()
    waiting = added(server, range(50))
    wait_until(lambda: waiting.trouble)
    assert not waiting.close()
    assert server.heard == []
    assert str(waiting.trouble) == "away"

    tried, late = server.tries, Server()
    late.is_there.set()
    waiting.add(lambda: late.hear(1))  # nobody does it any more
    time.sleep(0.05)
    assert (server.tries, late.heard) == (tried, [])


def test_nothing_was_added():
    assert Delivery().close()


def test_a_job_that_hangs_is_left_behind_where_the_end_is_urgent():
    go_on = threading.Event()
    waiting = Delivery()
    waiting.add(go_on.wait)
    began_s = time.monotonic()
    assert not waiting.close(patient=False)
    assert 0.2 < time.monotonic() - began_s < 60
    go_on.set()


def test_a_long_job_is_waited_for_where_it_is_not():
    waiting, done = Delivery(), []
    waiting.add(lambda: (time.sleep(0.5), done.append(1)))
    assert waiting.close()
    assert done == [1]


def test_no_more_wait_than_memory_has_room_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(delivery, "MOST_WAITING", 10)
    server = Server()
    waiting = added(server, range(100))
    server.is_there.set()
    assert not waiting.close()
    assert server.heard == list(range(len(server.heard)))
    assert len(server.heard) < 20
