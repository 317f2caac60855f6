"""Ctrl-C again and again, at any moment of a search: one line, and no process that stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from helpers.commands import BIN, Background
from helpers.studies import trials_so_far

LEFT_S = 10  # after its driver has ended; what Ray leaves by itself stays for 50 to 90 s
GAP_S = 0.3


def processes_of(session: int) -> list[str]:
    """The commands of all processes of a session that live, whoever their parents are by now."""
    commands = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                commands.append(" ".join(process.cmdline()))
    return commands


def submit(folder: Path, digits: Path, *more: str) -> Background:
    words = ["--data", digits, "--storage", f"sqlite:///{folder}/nas.db", "--output", folder]
    words += ["--space", "tiny", "--detector", "fcos", "--image-size", "32", "--epochs", "500"]
    words += ["--sampler", "random", "--no-baselines", *more]
    command = ["env", "--default-signal=INT", BIN / "nas-submit", *words]
    return Background(folder / "log", *command)


def check_ends(search: Background, moment: Callable[[], object]) -> None:
    """From a moment on, three times Ctrl-C as a terminal sends it."""
    search.wait_until(moment)
    for _ in range(3):
        with suppress(ProcessLookupError):
            os.killpg(search.pid, signal.SIGINT)
        time.sleep(GAP_S)
    assert search.wait() == 130, search.printed()
    ended_s = time.monotonic()
    while left := processes_of(search.pid):
        assert time.monotonic() - ended_s < LEFT_S, left
        time.sleep(0.2)
    printed = search.printed()
    assert "Traceback" not in printed
    last = printed.splitlines()[-1]
    assert last.startswith("Stopped. The same command goes on")
    assert printed.count("Stopped") == 1


def test_while_its_modules_are_imported():
    program = "import nas.cli, signal; signal.raise_signal(signal.SIGINT)"
    ended = subprocess.run(
        ["env", "--default-signal=INT", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 130
    assert ended.stderr == "Stopped. The same command goes on, or begins again.\n"


# a word in the command of the process that has just been started
STARTED = {
    "the cluster's head": "gcs_server",
    "its raylet": "raylet/raylet",
    "Ray's agents": "gent",
    "a worker": "Trainable",
}


@pytest.mark.parametrize(
    "word",
    [
        pytest.param(word, id=name, marks=[] if word == "gent" else pytest.mark.long)
        for name, word in STARTED.items()
    ],
)
def test_while_ray_starts(tmp_path: Path, digits: Path, word: str):
    pytest.importorskip("ray")
    with submit(tmp_path, digits) as search:
        check_ends(search, lambda: any(word in each for each in processes_of(search.pid)))


def has_trained(folder: Path) -> bool:
    trials = trials_so_far(f"sqlite:///{folder}/nas.db")
    return any(trial.intermediate_values for trial in trials)


@pytest.mark.parametrize("backend", [["--local"], pytest.param([], marks=pytest.mark.long)])
@pytest.mark.parametrize("loader_workers", [pytest.param(0, marks=pytest.mark.long), 2])
def test_while_it_trains(tmp_path: Path, digits: Path, backend: list[str], loader_workers: int):
    if not backend:
        pytest.importorskip("ray")
    loaders = ("--set", f"recipe.loader_workers={loader_workers}")
    with submit(tmp_path, digits, *loaders, *backend) as search:
        check_ends(search, lambda: has_trained(tmp_path))
