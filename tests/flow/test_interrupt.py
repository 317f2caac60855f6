"""Ctrl-C on a running search, and the same command again."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from helpers.commands import BIN, DEADLINE_S, Background, Run, run_here
from helpers.studies import trials_so_far
from optuna.trial import FrozenTrial, TrialState

from nas.study.leaderboard import leaderboard, load_study
from nas.study.storage import open_storage


class Search:
    """`nas-submit` in a process of its own, as a shell would start it."""

    def __init__(self, folder: Path, digits: Path, *more: str) -> None:
        self.log = folder / "log"
        self.storage = f"sqlite:///{folder}/nas.db"
        self.words = ["--data", digits, "--storage", self.storage, "--output", folder / "runs"]
        self.words += ["--space", "tiny", "--detector", "fcos", "--sampler", "random"]
        self.words += ["--image-size", "32", "--epochs", "3", "--no-baselines", "--trials", "4"]
        self.words += more

    def start(self, signals: str = "--default-signal=INT") -> Background:
        """Interrupts are heard, also where the tests themselves run in the background."""
        return Background(self.log, "env", signals, BIN / "nas-submit", *self.words)

    def trials(self) -> list[FrozenTrial]:
        return trials_so_far(self.storage)

    def wait_for(self, process: Background, condition: Callable[[list[FrozenTrial]], bool]) -> None:
        process.wait_until(lambda: condition(self.trials()))


def trained_for_an_epoch(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.RUNNING and bool(trial.intermediate_values)


@pytest.mark.parametrize("backend", ["local", pytest.param("ray", marks=pytest.mark.long)])
def test_the_same_command_goes_on(tmp_path: Path, digits: Path, backend: str):
    if backend == "ray":
        pytest.importorskip("ray")
    search = Search(tmp_path, digits, *(["--local"] if backend == "local" else []))
    with search.start() as process:
        # One candidate done, another with an epoch behind it.
        search.wait_for(
            process,
            lambda trials: (
                any(trial.state == TrialState.COMPLETE for trial in trials)
                and any(map(trained_for_an_epoch, trials))
            ),
        )
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert process.wait() == 130
    assert "The same command goes on" in process.printed()
    interrupted = search.trials()
    assert any(trial.state == TrialState.RUNNING for trial in interrupted)

    with search.start() as process:
        assert process.wait() == 0, process.printed()
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
    study = load_study(open_storage(search.storage, create=False), "digits")
    assert len(leaderboard(study)) == 4
    assert "Traceback" not in process.printed()


@pytest.mark.long
def test_a_killed_driver_leaves_a_study_that_goes_on(tmp_path: Path, digits: Path):
    search = Search(tmp_path, digits, "--local")
    with search.start() as process:
        search.wait_for(process, lambda trials: any(map(trained_for_an_epoch, trials)))
        process.process.kill()
        process.wait()
    with search.start() as process:
        assert process.wait() == 0, process.printed()
    assert [trial.number for trial in search.trials()] == [0, 1, 2, 3]
    assert {trial.state for trial in search.trials()} == {TrialState.COMPLETE}


@pytest.mark.long
def test_a_second_driver_is_refused_while_the_first_lives(tmp_path: Path, digits: Path):
    search = Search(tmp_path, digits, "--local", "--epochs", "400")
    with search.start() as process:
        search.wait_for(
            process, lambda trials: any(trial.state == TrialState.RUNNING for trial in trials)
        )
        second = run_here("nas-submit", *search.words)
        assert second.code == 2
        assert f"is being run by process {process.pid}" in second.err.splitlines()[-1]
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait() == 130


@pytest.mark.long
def test_stop_and_resume_from_elsewhere(
    tmp_path: Path, digits: Path, nas: Run, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("ray")
    monkeypatch.setattr("nas.cli.control.STOP_S", DEADLINE_S)
    search = Search(tmp_path, digits, "--epochs", "12")
    # As shells do with what they start in the background.
    with search.start("--ignore-signal=INT") as process:
        search.wait_for(process, lambda trials: any(map(trained_for_an_epoch, trials)))
        stopped = nas("stop", "--storage", search.storage)
        assert process.wait() == 130
    assert stopped.out.startswith(f"Stopped process {process.pid} on ")
    assert f"Go on with: nas resume --study digits --storage {search.storage}\n" in stopped.out
    assert any(trial.state == TrialState.RUNNING for trial in search.trials())
    assert nas("stop", "--storage", search.storage).out == "digits is not running.\n"
    resumed = nas("resume", "--trials", "3", "--local", "--storage", search.storage)
    assert resumed.code == 0, resumed.err
    assert {trial.state for trial in search.trials()} == {TrialState.COMPLETE}
    assert len(search.trials()) >= 3


def workers_of(process: Background) -> list[psutil.Process]:
    """Those of its processes that train."""
    workers = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.Error):  # gone by now
            workers += [child] if "Trainable" in " ".join(child.cmdline()) else []
    return workers


@pytest.mark.long
def test_a_killed_workers_candidate_goes_on_from_its_checkpoint(tmp_path: Path, digits: Path):
    pytest.importorskip("ray")
    search = Search(tmp_path, digits, "--epochs", "8", "--trials", "2", "--concurrent", "2")
    with search.start() as process:
        search.wait_for(
            process,
            lambda trials: (
                any(len(trial.intermediate_values) > 1 for trial in trials)
                and len(workers_of(process)) == 2
            ),
        )
        workers_of(process)[0].kill()
        assert process.wait() == 0, process.printed()
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
    assert "requeued" in process.printed()
