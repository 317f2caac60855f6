"""Searches without their terminal: in the background, and as a job on a Ray cluster."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from helpers.commands import (
    BIN,
    DEADLINE_S,
    Run,
    run_here,
    run_program,
    wait_until,
)
from helpers.servers import PostgresServer, free_port
from helpers.studies import trials_so_far
from optuna.trial import TrialState

RAY_TOKEN = "ab" * 32
SMALL = ["--space", "tiny", "--detector", "fcos", "--image-size", "32", "--sampler", "random"]


def status(*words: object) -> list[dict]:
    """The trials so far; none where nothing is there yet."""
    done = run_here("nas", "status", "--json", *words)
    return done.json["trials"] if done.code == 0 else []


def test_in_the_background_stopped_and_resumed_from_elsewhere(
    tmp_path: Path, digits: Path, nas: Run, monkeypatch: pytest.MonkeyPatch
):
    url = f"sqlite:///{tmp_path}/nas.db"
    storage = ["--storage", url]
    where = tmp_path / "here"
    where.mkdir()
    monkeypatch.chdir(where)
    data = ["--data", os.path.relpath(digits, where), "--output", "runs", *storage, *SMALL]
    length = ["--epochs", "24", "--no-baselines", "--trials", "2"]
    said = run_program("nas-submit", *data, *length, "--local", "--detach", "--json").json
    wait_until(
        lambda: any(len(trial.intermediate_values) >= 2 for trial in trials_so_far(url)),
        Path(said["log"]).read_text,
    )
    assert psutil.pid_exists(said["pid"])
    monkeypatch.setattr("nas.cli.control.STOP_S", DEADLINE_S)
    stopped = nas("stop", *storage)
    assert stopped.code == 0, stopped.err
    assert f"Stopped process {said['pid']}" in stopped.out
    assert "The same command goes on" in Path(said["log"]).read_text()
    (row,) = status(*storage)
    assert row["state"] == "WAITING"  # for the next driver
    assert "the next command goes on with it" in nas("status", *storage).out
    told = nas("logs", "--follow", *storage)  # comes to its end, because nobody runs the search
    assert told.code == 0, told.err
    lines = told.out.splitlines()
    assert lines[0].endswith(
        f"process {said['pid']} on {socket.gethostname()}  search begins with 0 of 2 trials"
    )
    assert f"trial 0  {row['layout']}  training  epoch 2/24, mAP " in told.out
    assert lines[-1].endswith("search stopped")
    monkeypatch.chdir(tmp_path)
    resumed = nas("resume", *storage, "--trials", "1", "--local")
    assert resumed.code == 0, resumed.err
    (row,) = status(*storage)
    assert (row["state"], row["epochs"]) == ("COMPLETE", 24)


def test_what_is_wrong_is_said_before_the_terminal_is_free(tmp_path: Path, digits: Path):
    command = ["--data", digits, *SMALL, "--storage", f"sqlite:///{tmp_path}/nas.db", "--local"]
    command += ["--detach", "--output", tmp_path / "runs", "--budget", "1MiB"]
    refused = run_program("nas-submit", *command)
    if refused.code == 0:  # a slow machine: then the log has it
        log = tmp_path / "runs" / "digits.log"
        wait_until(lambda: "budget" in log.read_text(), log.read_text)
    else:
        assert refused.code == 2
        assert refused.err.startswith("nas-submit: ")
        assert "Traceback" not in refused.err


@pytest.fixture
def head() -> Iterator[str]:
    """Address of the Jobs API of a cluster of one machine, which asks for a token."""
    pytest.importorskip("ray")
    pytest.importorskip("aiohttp", reason="needs ray[default]")
    port, dashboard = free_port(), free_port()
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"  # as in an activated environment
    environment = {
        **os.environ,
        "PATH": path,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_TOKEN": RAY_TOKEN,
        "OMP_NUM_THREADS": "1",
    }
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        words = [
            "--head",
            f"--port={port}",
            f"--dashboard-port={dashboard}",
            "--num-cpus=2",
            "--num-gpus=0",
        ]
        words += [f"--dashboard-agent-listen-port={free_port()}", f"--temp-dir={folder}"]
        words += ["--object-store-memory=100000000", "--disable-usage-stats"]
        started = subprocess.run(
            [BIN / "ray", "start", *words],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert started.returncode == 0, started.stdout + started.stderr
        yield f"http://127.0.0.1:{dashboard}"
        for process in psutil.process_iter(["cmdline"]):
            text = " ".join(process.info["cmdline"] or [])
            if folder in text or f":{port}" in text or f"={port}" in text:
                process.kill()


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_as_a_job_on_a_cluster(
    head: str, tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
):
    server = PostgresServer(tmp_path / "server")
    storage = ["--storage", server.url]
    command = ["nas-submit", "--cluster", head, "--data", digits, *storage]
    command += ["--output", tmp_path / "runs", *SMALL]
    command += ["--epochs", "2", "--no-baselines", "--trials", "2"]
    monkeypatch.chdir(tmp_path)

    # Processes of their own: Ray reads its token once.
    known = {"env": {**os.environ, "RAY_AUTH_TOKEN": RAY_TOKEN}}
    wrong = {"env": {**os.environ, "RAY_AUTH_TOKEN": "cd" * 32}}
    try:
        refused = run_program(*command, **wrong)
        assert refused.code == 2
        assert "the cluster's token belongs into the variable RAY_AUTH_TOKEN" in refused.err
        assert "Traceback" not in refused.err
        followed = run_program(*command, **known)
        assert followed.code == 0, followed.out + followed.err
        assert "Leaderboard of digits" in followed.out
        assert [row["state"] for row in status(*storage)] == ["COMPLETE"] * 2
        resume = ["resume", *storage, "--trials", "3", "--detach", "--json"]
        detached = run_program("nas", *resume, **known)
        assert detached.json["cluster"] == head
        wait_until(
            lambda: (
                [trial.state for trial in trials_so_far(server.url)] == [TrialState.COMPLETE] * 3
            )
        )
        assert [row["state"] for row in status(*storage)] == ["COMPLETE"] * 3
    finally:
        server.end()
