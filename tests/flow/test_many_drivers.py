"""Several drivers on one study, in processes of their own, on real database servers; some of them
die.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import psutil
import pytest
from helpers.commands import DEADLINE_S, wait_until
from helpers.servers import KINDS, start_server
from helpers.untrained import FACTS, report
from optuna.trial import TrialState

from nas.artifacts.paths import CHECKPOINT
from nas.config.spec import load_spec
from nas.search.open_search import open_search
from nas.search.search import NEVER_BEGUN

EPOCHS = 3
# Each on both servers in the long tests.
ON_ONE_SERVER = pytest.mark.parametrize(
    "database",
    [pytest.param(kind, marks=[pytest.mark.long] if kind != KINDS[0] else []) for kind in KINDS],
    indirect=True,
)


def drive(url: str, folder: Path, name: str, trials: int, dies_after: int, space: str) -> None:
    """A driver that trains nothing, two candidates at once; notes each epoch that it trains, and
    may kill itself after one.
    """
    request = {
        "study": name,
        "data.root": "cells",
        "space": space,
        "storage": url,
        "run.output": str(folder / "runs"),
        "recipe.epochs": EPOCHS,
        "search.trials": trials,
        "search.sampler": "tpe",
        "search.baselines": False,
        "search.seed": os.getpid() % 1000,
    }
    study = open_search(load_spec(None, request), FACTS)
    draw = random.Random(os.getpid())
    done: dict[int, int] = {}  # epochs of each trial

    trained = 0
    with study.lease(), (folder / f"log-{os.getpid()}").open("a", buffering=1) as log:
        while not study.finished:
            while study.running < 2 and (assignment := study.ask()):
                checkpoint = assignment.folder / CHECKPOINT
                done[assignment.number] = int(checkpoint.read_text()) if checkpoint.exists() else 0
                if checkpoint.exists():  # as a candidate does: perhaps nobody heard it
                    study.report(assignment.number, report(0.1, done[assignment.number], EPOCHS))
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
                study.report(number, report(0.1, done[number], EPOCHS))
    (folder / f"ended-{os.getpid()}").write_text(str(study.stop_reason))


class Drivers:
    """Processes on one study."""

    def __init__(self, url: str, folder: Path, name: str, trials: int, space: str = "tiny") -> None:
        self.url, self.folder, self.name, self.trials, self.space = url, folder, name, trials, space

    def start(self, dies_after: int = 0) -> subprocess.Popen[bytes]:
        words = [self.url, self.folder, self.name, self.trials, dies_after, self.space]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        return subprocess.Popen([sys.executable, __file__, *map(str, words)], env=environment)

    def check(self, complete: int = 0) -> None:
        """Exactly the asked trials, or as many as said, all complete, all different, every epoch
        reported once; beside them perhaps what MySQL undid, as one of two that block each other,
        before it was begun.
        """
        complete = complete or self.trials
        storage = optuna.storages.RDBStorage(self.url)
        trials = optuna.load_study(study_name=self.name, storage=storage).trials
        storage.engine.dispose()
        trials = [t for t in trials if t.user_attrs.get("fail_reason") != NEVER_BEGUN]
        assert Counter(trial.state for trial in trials) == {TrialState.COMPLETE: complete}
        assert len({trial.user_attrs["layout_id"] for trial in trials}) == complete
        assert all(set(trial.intermediate_values) == set(range(1, EPOCHS + 1)) for trial in trials)

    def logs(self) -> list[list[tuple[int, int]]]:
        """The epochs that each driver trained."""
        paths = sorted(self.folder.glob("log-*"))
        return [
            [tuple(json.loads(line)) for line in path.read_text().splitlines()] for path in paths
        ]


def test_two_drivers_share_a_study(database: str, tmp_path: Path):
    drivers = Drivers(database, tmp_path, "shared", 20)
    processes = [drivers.start(), drivers.start()]
    for process in processes:
        assert process.wait(timeout=DEADLINE_S) == 0
    drivers.check()
    first, second = drivers.logs()
    assert len(first) > 3
    assert len(second) > 3
    assert len(set(first + second)) == len(first + second) == 20 * EPOCHS  # nothing trained twice


@ON_ONE_SERVER
@pytest.mark.parametrize("layouts", [60, pytest.param(200, marks=pytest.mark.long)])
def test_many_layouts_without_a_duplicate(database: str, tmp_path: Path, layouts: int):
    """Four running at once, chosen by the default TPE, which suggests one in five again where
    nobody looks.
    """
    drivers = Drivers(database, tmp_path, f"distinct-{layouts}", layouts, space="paper")
    processes = [drivers.start(), drivers.start()]
    for process in processes:
        assert process.wait(timeout=DEADLINE_S) == 0
    drivers.check()
    assert min(len(log) for log in drivers.logs()) > layouts / 4 * EPOCHS


@ON_ONE_SERVER
def test_a_small_space_is_exhausted(database: str, tmp_path: Path):
    space = tmp_path / "small.yaml"
    stages = ["C", [1]], ["C", [1]], ["C, T", [1, 2]], ["T", [1, 2]]
    text = "".join(f"  - {{kinds: [{kinds}], depths: {depths}}}\n" for kinds, depths in stages)
    space.write_text(f"name: small\nchannels: [16]\nstages:\n{text}")
    drivers = Drivers(database, tmp_path, "small", 20, space=str(space))
    processes = [drivers.start(), drivers.start()]
    for process in processes:
        assert process.wait(timeout=DEADLINE_S) == 0
    drivers.check(complete=8)
    assert "space exhausted" in "".join(path.read_text() for path in tmp_path.glob("ended-*"))


@ON_ONE_SERVER
def test_a_living_driver_takes_over_from_a_dead_one(database: str, tmp_path: Path):
    drivers = Drivers(database, tmp_path, "taken", 12)
    dying, living = drivers.start(dies_after=5), drivers.start()
    assert dying.wait(timeout=DEADLINE_S) == -signal.SIGKILL
    assert living.wait(timeout=DEADLINE_S) == 0
    drivers.check()
    trained = Counter(epoch for log in drivers.logs() for epoch in log)
    assert len(trained) == 12 * EPOCHS
    assert all(
        count == 1 for count in trained.values()
    )  # its checkpoints were taken over, the unreported epoch included


@pytest.mark.long
def test_a_dead_search_is_finished_by_the_same_command(database: str, tmp_path: Path):
    drivers = Drivers(database, tmp_path, "again", 6)
    for dies_after in (2, 4, 1, 3):
        dying = drivers.start(dies_after)
        assert dying.wait(timeout=DEADLINE_S) == -signal.SIGKILL
    last = drivers.start()
    assert last.wait(timeout=DEADLINE_S) == 0
    drivers.check()


@pytest.mark.parametrize("kind", [KINDS[0], pytest.param(KINDS[1], marks=pytest.mark.long)])
def test_a_server_that_is_killed_and_comes_back(tmp_path: Path, kind: str):
    server = start_server(kind, tmp_path / "server")
    drivers = Drivers(server.url, tmp_path, "away", 8)
    driver = drivers.start()
    try:
        wait_until(lambda: len(drivers.logs()) == 1 and len(drivers.logs()[0]) > 4)
        running = psutil.Process(server.pid)
        children = running.children(recursive=True)
        for process in (running, *children):
            process.kill()
        psutil.wait_procs([running, *children], timeout=DEADLINE_S)
        time.sleep(2)
        server.start()
        assert driver.wait(timeout=DEADLINE_S) == 0
        drivers.check()
        (log,) = drivers.logs()
        assert len(set(log)) == len(log) == 8 * EPOCHS  # nothing trained twice
    finally:
        driver.kill()
        server.end()


if __name__ == "__main__":
    drive(
        sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6]
    )
