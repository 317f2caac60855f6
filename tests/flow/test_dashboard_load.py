"""The dashboard while others keep it busy: slow clients, many clients, clients that guess the
token; and beside studies of other programs.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
import pytest
from helpers.browsing import TOKEN, browser_of
from helpers.commands import Run
from helpers.studies import KNOWN
from helpers.untrained import Driver

from dashboards.auth.middleware import Access
from dashboards.auth.sessions import Sessions
from dashboards.connections import MOST, MOST_OF_ONE, Connections
from dashboards.pages import CANNOT_BE_SHOWN
from dashboards.server import make_dashboard
from nas.study.storage import open_storage

pytestmark = pytest.mark.filterwarnings("ignore")  # Optuna Dashboard's own
PATIENCE_S = 30.0  # of a busy machine; what is refused for good never comes


@pytest.fixture
def serving(searched: Driver) -> Iterator[int]:
    storage = open_storage(searched.spec.storage, create=False, read_only=True)
    server = make_dashboard(storage, Access(Sessions(TOKEN, delay_s=4 * PATIENCE_S)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def owner_logs_in(port: int) -> bytes:
    """The first page, as somebody with the token comes to it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    own = {"Origin": f"http://127.0.0.1:{port}", "Accept": "text/html"}
    connection.request("POST", "/login", f"token={TOKEN}", own)
    answer = connection.getresponse()
    assert answer.status == 303
    cookie = str(answer.headers["Set-Cookie"]).partition(";")[0]
    assert cookie.startswith(f"nas-session-{port}=")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    connection.request("GET", "/", headers={"Cookie": cookie, "Accept": "text/html"})
    return connection.getresponse().read()


def test_three_hundred_slow_clients_keep_nobody_out(serving: int):
    with ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection(("127.0.0.1", serving)))
            for _ in range(300)
        ]
        for connection in slow[:-1:2]:
            connection.send(b"GET / HT")  # and never more
        assert b"<h1>Studies</h1>" in owner_logs_in(serving)
        assert threading.active_count() < 300


def test_guesses_do_not_delay_the_owner(serving: int):
    """Each of them waits for longer than the owner does."""
    own = f"http://127.0.0.1:{serving}"
    with ExitStack() as stack:
        for _ in range(40):
            connection = http.client.HTTPConnection("127.0.0.1", serving)
            stack.callback(connection.close)
            connection.request("POST", "/login", "token=guess", {"Origin": own})
        assert b"<h1>Studies</h1>" in owner_logs_in(serving)


class Wire:
    """A connection that says whether it was dropped."""

    dropped = False

    def shutdown(self, how: int) -> None:
        self.dropped = True


def test_the_oldest_that_has_not_asked_goes_first():
    connections = Connections(most=3, most_of_one=3)
    asked, old, new = Wire(), Wire(), [Wire() for _ in range(3)]
    for wire in (asked, old):
        connections.open(wire, "10.0.0.1")
    connections.answering(asked)
    for wire in new:
        connections.open(wire, "10.0.0.1")
    assert [wire.dropped for wire in (asked, old, *new)] == [False, True, False, False, False]


def test_one_address_takes_no_more_than_its_share():
    connections, other = Connections(), Wire()
    connections.open(other, "10.0.0.2")
    greedy = [Wire() for _ in range(2 * MOST)]
    for wire in greedy:
        connections.open(wire, "10.0.0.1")
    assert not other.dropped
    assert sum(not wire.dropped for wire in greedy) == MOST_OF_ONE


@pytest.mark.parametrize("asked", [False, True])
def test_time_is_limited_for_asking_and_for_answering(asked: bool):
    connections, wire = Connections(ask_s=-1 if not asked else 60, answer_s=-1), Wire()
    connections.open(wire, "10.0.0.1")
    if asked:
        connections.answering(wire)
    connections.close_late()
    assert wire.dropped


ODD: dict[str, Callable[[optuna.Study], Any]] = {
    "no request": lambda study: study.set_user_attr("nas_spec", None),
    "text for a request": lambda study: study.set_user_attr("nas_spec", {"data": "x"}),
    "numbers as text": lambda study: study.add_trial(trial(map="0.5", params="12", parts="x")),
    "mappings as numbers": lambda study: study.add_trial(trial(params={"lr": 1}, epochs=[])),
    "no layout": lambda study: study.add_trial(trial(layout=5, layout_id=None, losses=1)),
    "odd facts": lambda study: study.set_user_attr("nas_data", [1, 2]),
    "odd baselines": lambda study: study.set_user_attr("nas_baselines", [{"layout": "x"}, 5]),
    "odd costs": lambda study: study.set_user_attr("nas_cost_predicted", {"trials": "many"}),
    "odd check": lambda study: study.set_user_attr("nas_proxy_check", "fine"),
}


def trial(**attributes: Any) -> optuna.trial.FrozenTrial:
    return optuna.trial.create_trial(value=0.5, user_attrs={"role": "candidate", **attributes})


def test_studies_of_others_take_no_page_away(tmp_path: Path, nas: Run):
    driver = Driver(tmp_path)
    driver.train()
    storage = open_storage(driver.spec.storage, create=False)
    for name, spoil in ODD.items():
        study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
        for key, value in KNOWN.items():
            study.set_user_attr(key, value)
        spoil(study)
    inside = browser_of(driver)
    start = inside.get("/")
    assert start.status == 200
    assert all(name in start.text for name in ODD)
    for number in range(1, len(ODD) + 2):
        page = inside.get(f"/studies/{number}")
        assert page.status == 200, page.text
        assert inside.get(f"/studies/{number}/trials/0").status in (200, 404)
    listed = nas("list", "--storage", driver.spec.storage, "--json")
    assert {row["study"] for row in json.loads(listed.out)} == {driver.spec.study, *ODD}
    for name in ODD:
        shown = nas("status", name, "--storage", driver.spec.storage)
        assert shown.code in (0, 2)
        assert "Traceback" not in shown.err


def test_what_cannot_be_shown_says_so(searched: Driver, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dashboards.pages.summary", lambda view: 1 / 0)
    monkeypatch.setattr("dashboards.pages.study_context", lambda view: {}["x"])
    inside = browser_of(searched)
    assert CANNOT_BE_SHOWN in inside.get("/").text
    shown = inside.get("/studies/1")
    assert shown.status == 422
    assert CANNOT_BE_SHOWN in shown.text


@pytest.mark.parametrize(
    "path",
    [
        f"/studies/{10**20}",
        f"/studies/1/trials/{10**20}",
        f"/api/studies/{10**20}",
        f"/csv/{10**20}",
        "/api/studies/1?after=abc",
        f"/api/studies/1?after={10**20}",
    ],
)
def test_numbers_that_are_none_are_refused(searched: Driver, path: str):
    assert browser_of(searched).get(path).status in (400, 404)


@pytest.mark.parametrize("origin", ["http://[evil", "http://127.0.0.1:9", "http://localhost:9"])
def test_an_origin_on_this_machine_is_not_ours(searched: Driver, origin: str):
    named = browser_of(
        searched, allow_edit=True, hosts=frozenset({"localhost", "127.0.0.1", socket.gethostname()})
    )
    answer = named("DELETE", "/api/studies/1", Origin=origin, Sec_Fetch_Site=None)
    assert answer.status == 403
