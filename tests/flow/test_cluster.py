"""A Ray cluster of two nodes, both on this machine, in processes of their own; one of them dies."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from helpers.commands import BIN, Background
from helpers.servers import free_port
from helpers.studies import trials_so_far
from optuna.trial import TrialState

from nas.study.leaderboard import leaderboard, load_study
from nas.study.storage import open_storage

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "RAY_AUTH_TOKEN": "ab" * 32}


class Cluster:
    """A head with one core and a second node with one core, which ask for a token."""

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("ray")
        self.port = free_port()
        self.folder = folder
        self.environment = {**os.environ, **QUIET}
        common = [
            "--num-cpus=1",
            "--num-gpus=0",
            "--object-store-memory=100000000",
            "--disable-usage-stats",
        ]
        # Short: sockets have long names.
        head = [
            "--head",
            f"--port={self.port}",
            "--include-dashboard=false",
            f"--temp-dir={folder}",
        ]
        self.nodes = [
            self._start(*common, *head),
            self._start(*common, f"--address=127.0.0.1:{self.port}"),
        ]
        self.environment["RAY_ADDRESS"] = f"127.0.0.1:{self.port}"

    def _start(self, *words: str) -> psutil.Process:
        """Returns its raylet."""
        before = set(raylets())
        done = subprocess.run(
            [BIN / "ray", "start", *words],
            env={**self.environment, "RAY_AUTH_MODE": "token"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (pid,) = [
            pid for pid, words in raylets().items() if pid not in before and str(self.port) in words
        ]
        return psutil.Process(pid)

    def kill(self, raylet: psutil.Process) -> None:
        """A node, with everything that runs on it."""
        for process in [*raylet.children(recursive=True), raylet]:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def end(self) -> None:
        for process in psutil.process_iter(["cmdline"]):
            words = " ".join(process.info["cmdline"] or [])
            if (
                f"127.0.0.1:{self.port}" in words
                or f"={self.port}" in words
                or str(self.folder) in words
            ):
                process.kill()


def arguments(process: psutil.Process) -> str:
    """Nothing, where it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def raylets() -> dict[int, str]:
    """Arguments by process id."""
    found = {process.pid: process.info for process in psutil.process_iter(["name", "cmdline"])}
    return {
        pid: " ".join(info["cmdline"] or [])
        for pid, info in found.items()
        if info["name"] == "raylet"
    }


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        started = Cluster(Path(folder))
        yield started
        started.end()


@pytest.mark.long
def test_a_search_on_two_nodes_survives_one(cluster: Cluster, tmp_path: Path, digits: Path):
    storage = f"sqlite:///{tmp_path}/nas.db"
    command = ["nas-submit", "--data", digits, "--storage", storage, "--output", tmp_path / "runs"]
    command += ["--space", "tiny", "--detector", "fcos", "--image-size", "32", "--no-baselines"]
    command += ["--epochs", "8", "--trials", "3", "--sampler", "random"]
    _, second = cluster.nodes

    def busy() -> bool:
        """Two candidates have reported, one of them from the second node."""
        there = any("Trainable" in arguments(child) for child in second.children(recursive=True))
        trials = trials_so_far(storage) if there else []
        return sum(len(trial.intermediate_values) > 1 for trial in trials) >= 2

    with Background(tmp_path / "log", *command, env=cluster.environment) as search:
        search.wait_until(busy)
        cluster.kill(second)
        assert search.wait() == 0, search.printed()
    found = trials_so_far(storage)
    assert [trial.state for trial in found] == [TrialState.COMPLETE] * 3
    assert all(set(trial.intermediate_values) == set(range(1, 9)) for trial in found)
    assert "requeued" in search.printed()
    epochs = [
        json.loads(line)["epoch"]
        for path in tmp_path.rglob("log.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert len(epochs) <= 3 * 8 + 1
    assert len(leaderboard(load_study(open_storage(storage, create=False), "digits"))) == 3


@pytest.mark.long
def test_a_search_without_a_machine_ends(cluster: Cluster, tmp_path: Path, digits: Path):
    storage = f"sqlite:///{tmp_path}/nas.db"
    command = ["nas-submit", "--data", digits, "--storage", storage, "--output", tmp_path / "runs"]
    command += ["--space", "tiny", "--detector", "fcos", "--image-size", "32", "--no-baselines"]
    command += ["--epochs", "400", "--trials", "2"]
    with Background(tmp_path / "log", *command, env=cluster.environment) as search:
        search.wait_until(lambda: "epoch 2/400" in search.printed())
        for node in cluster.nodes:
            cluster.kill(node)
        assert search.wait() == 2
    assert search.printed().splitlines()[-1] == (
        "nas-submit: Ray has lost its last machine. Nothing else is lost: the same command goes on"
    )
    assert {trial.state for trial in trials_so_far(storage)} == {TrialState.RUNNING}
