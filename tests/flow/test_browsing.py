"""A search goes on while ten clients look at it, and loses nothing by it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import optuna
import pytest
from helpers.browsing import OWN, Browser
from helpers.untrained import Driver
from optuna.trial import TrialState

from dashboards.auth.middleware import Access, Guard
from dashboards.auth.sessions import Sessions
from dashboards.server import dashboard_app
from nas.study.storage import open_storage

pytestmark = pytest.mark.filterwarnings("ignore")  # Optuna Dashboard's own
CLIENTS, TRIALS = 10, 6
PATHS = ("/", "/studies/{id}", "/studies/{id}/trials/0", "/api/studies/{id}", "/csv/{id}")


def look(
    browser: Browser, study_id: int, ended: threading.Event, seen: list[tuple[str, int]]
) -> None:
    """Page after page until the search is over, once at least."""
    while True:
        for path in PATHS:
            seen.append((path, browser.get(path.format(id=study_id)).status))
            time.sleep(0.1)
        if ended.is_set():
            return


def search_while_ten_look(driver: Driver) -> None:
    storage = open_storage(driver.spec.storage, create=False, read_only=True)
    access = Access(Sessions("correct-horse-battery", delay_s=0))
    guarded = Guard(dashboard_app(storage, access), access)
    driver.train(0.5)
    study_id = storage.get_study_id_from_name(driver.spec.study)
    ended, seen = threading.Event(), []
    clients = [Browser(guarded, dict(OWN)) for _ in range(CLIENTS)]
    assert {client.log_in("correct-horse-battery").status for client in clients} == {303}
    threads = [
        threading.Thread(target=look, args=(client, study_id, ended, seen)) for client in clients
    ]
    for thread in threads:
        thread.start()
    try:
        slowest_s = 0.0
        for number in range(1, TRIALS):
            began = time.monotonic()
            driver.train(number / TRIALS)
            slowest_s = max(slowest_s, time.monotonic() - began)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        storage.engine.dispose()  # the connections of those threads
    assert {status for _, status in seen} == {200}, [entry for entry in seen if entry[1] != 200]
    assert len(seen) >= CLIENTS * len(PATHS)
    states = [
        trial.state
        for trial in optuna.load_study(
            study_name=driver.spec.study, storage=driver.study.storage
        ).trials
    ]
    assert states == [TrialState.COMPLETE] * TRIALS
    assert "away" not in " ".join(
        event.reason or "" for event in driver.events
    )  # no write had to be repeated
    assert slowest_s < 20, "a writer that waits for readers waits for a lock: 30 s"
    driver.study.storage.engine.dispose()


def test_on_sqlite(tmp_path: Path):
    search_while_ten_look(Driver(tmp_path, **{"search.trials": TRIALS}))


def test_on_a_server(tmp_path: Path, database: str):
    search_while_ten_look(
        Driver(tmp_path, **{"search.trials": TRIALS, "storage": database, "study": "browsed"})
    )
