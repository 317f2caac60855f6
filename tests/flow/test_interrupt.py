"""Ctrl-C on a running search, and the same command again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from nas.study.leaderboard import leaderboard
from nas.study.storage import open_storage

START = "import sys; sys.argv[0] = 'nas-submit'; from nas.cli.submit import main; main()"


class Search:
    """`nas-submit` in a process of its own, as a shell would start it."""

    def __init__(self, folder: Path, digits: Path, *more: str) -> None:
        self.folder = folder
        self.storage = f"sqlite:///{folder}/nas.db"
        self.command = [
            sys.executable,
            "-c",
            START,
            "--data",
            str(digits),
            "--storage",
            self.storage,
        ]
        self.command += [
            "--output",
            str(folder / "runs"),
            "--space",
            "tiny",
            "--detector",
            "fcos",
            "--sampler",
            "random",
        ]
        self.command += [
            "--image-size",
            "32",
            "--epochs",
            "3",
            "--no-baselines",
            "--trials",
            "4",
            *more,
        ]

    def start(self, signals: str = "--default-signal=INT") -> subprocess.Popen[str]:
        """Interrupts are heard, also where the tests themselves run in the background."""
        with open(self.folder / "log", "a") as log:
            command = ["env", signals, *self.command]
            return subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, text=True, start_new_session=True
            )

    def trials(self) -> list[FrozenTrial]:
        try:
            return optuna.load_study(
                study_name="digits", storage=open_storage(self.storage, create=False)
            ).get_trials()
        except KeyError:
            return []

    def wait_for(self, condition, process: subprocess.Popen[str], seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if (self.folder / "nas.db").exists() and condition(self.trials()):
                return
            assert process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text())


@pytest.mark.parametrize("backend", [pytest.param("local", marks=pytest.mark.long), "ray"])
def test_the_same_command_goes_on(tmp_path: Path, digits: Path, backend: str):
    if backend == "ray":
        pytest.importorskip("ray")
    search = Search(tmp_path, digits, *(["--local"] if backend == "local" else []))
    process = search.start()
    # One candidate done, another with an epoch behind it.
    search.wait_for(
        lambda trials: (
            any(t.state == TrialState.COMPLETE for t in trials)
            and any(t.state == TrialState.RUNNING and t.intermediate_values for t in trials)
        ),
        process,
    )
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(timeout=60) == 130
    assert "The same command goes on" in (tmp_path / "log").read_text()
    interrupted = search.trials()
    assert any(trial.state == TrialState.RUNNING for trial in interrupted)

    assert search.start().wait(timeout=200) == 0, (tmp_path / "log").read_text()
    finished = search.trials()
    assert [trial.number for trial in finished] == [0, 1, 2, 3]
    assert {trial.state for trial in finished} == {TrialState.COMPLETE}
    assert len({trial.user_attrs["layout_id"] for trial in finished}) == 4
    for before, after in zip(interrupted, finished, strict=False):
        assert before.user_attrs["layout"] == after.user_attrs["layout"]
        assert before.datetime_start == after.datetime_start
        assert (
            before.intermediate_values.items() <= after.intermediate_values.items()
        )  # what was paid for is kept
        if before.state == TrialState.COMPLETE:
            assert before == after
    assert len(leaderboard(optuna.load_study(study_name="digits", storage=search.storage))) == 4
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.long
def test_a_killed_driver_leaves_a_study_that_goes_on(tmp_path: Path, digits: Path):
    search = Search(tmp_path, digits, "--local")
    process = search.start()
    search.wait_for(
        lambda trials: any(t.state == TrialState.RUNNING and t.intermediate_values for t in trials),
        process,
    )
    process.kill()
    process.wait()
    assert search.start().wait(timeout=200) == 0, (tmp_path / "log").read_text()
    assert [trial.number for trial in search.trials()] == [0, 1, 2, 3]
    assert {trial.state for trial in search.trials()} == {TrialState.COMPLETE}


@pytest.mark.long
def test_a_second_driver_is_refused_while_the_first_lives(tmp_path: Path, digits: Path):
    search = Search(tmp_path, digits, "--local")
    process = search.start()
    search.wait_for(lambda trials: any(t.state == TrialState.RUNNING for t in trials), process)
    second = subprocess.run(
        search.command, capture_output=True, text=True, check=False, timeout=100
    )
    assert second.returncode == 2
    assert f"is being run by process {process.pid}" in second.stderr.splitlines()[-1]
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130


def test_stop_and_resume_from_elsewhere(tmp_path: Path, digits: Path):
    pytest.importorskip("ray")
    search = Search(tmp_path, digits, "--epochs", "12")
    process = search.start(
        "--ignore-signal=INT"
    )  # as shells do with what they start in the background
    search.wait_for(
        lambda trials: any(t.state == TrialState.RUNNING and t.intermediate_values for t in trials),
        process,
    )

    def nas(*words: str) -> subprocess.CompletedProcess[str]:
        script = "import sys; sys.argv[0] = 'nas'; from nas.cli.main import main; main()"
        command = [sys.executable, "-c", script, *words, "--storage", search.storage]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)

    started = time.monotonic()
    stopped = nas("stop")
    assert process.wait(timeout=5) == 130
    assert time.monotonic() - started < 15  # with the start of the command itself
    assert stopped.stdout.startswith(f"Stopped process {process.pid} on ")
    assert "nas resume --study digits" in stopped.stdout
    assert any(trial.state == TrialState.RUNNING for trial in search.trials())
    assert nas("stop").stdout == "digits is not running.\n"
    resumed = nas("resume", "--trials", "3", "--local")
    assert resumed.returncode == 0, resumed.stderr
    assert {trial.state for trial in search.trials()} == {TrialState.COMPLETE}
    assert len(search.trials()) >= 3


def test_a_killed_workers_candidate_goes_on_from_its_checkpoint(tmp_path: Path, digits: Path):
    psutil = pytest.importorskip("psutil")
    pytest.importorskip("ray")
    search = Search(tmp_path, digits, "--epochs", "8", "--trials", "2", "--concurrent", "2")
    process = search.start()
    search.wait_for(lambda trials: any(len(t.intermediate_values) > 1 for t in trials), process)
    workers = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.Error):  # gone by now
            workers += [child] if "Trainable" in " ".join(child.cmdline()) else []
    assert len(workers) == 2
    workers[0].kill()
    assert process.wait(timeout=200) == 0, (tmp_path / "log").read_text()
    trials = search.trials()
    assert [(trial.number, trial.state) for trial in trials] == [
        (0, TrialState.COMPLETE),
        (1, TrialState.COMPLETE),
    ]
    assert all(set(trial.intermediate_values) == set(range(1, 9)) for trial in trials)
    epochs = [
        json.loads(line)["epoch"]
        for log in tmp_path.rglob("log.jsonl")
        for line in log.read_text().splitlines()
    ]
    assert len(epochs) <= 2 * 8 + 1  # at most the epoch that was running is trained twice
    assert "requeued" in (tmp_path / "log").read_text()
