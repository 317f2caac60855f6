"""Searches without their terminal: in the background, and as a job on a Ray cluster."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from helpers.servers import PostgresServer, free_port

BIN = Path(sys.executable).parent
SMALL = ["--space", "tiny", "--detector", "fcos", "--image-size", "32", "--sampler", "random"]


def nas(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
    program = BIN / str(words[0])
    return subprocess.run(
        [program, *map(str, words[1:])], capture_output=True, text=True, check=False, **options
    )


def status(*words: object) -> list[dict]:
    done = nas("nas", "status", "--json", *words)
    return json.loads(done.stdout)["trials"] if done.returncode == 0 else []


def wait_for(condition, seconds: float = 150) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_in_the_background_stopped_and_resumed_from_elsewhere(tmp_path: Path, digits: Path):
    storage = ["--storage", f"sqlite:///{tmp_path}/nas.db"]
    where = tmp_path / "here"
    where.mkdir()
    begun = nas(
        "nas-submit",
        "--data",
        os.path.relpath(digits, where),
        "--output",
        "runs",
        *storage,
        *SMALL,
        "--epochs",
        "40",
        "--no-baselines",
        "--trials",
        "2",
        "--local",
        "--detach",
        "--json",
        cwd=where,
    )
    assert begun.returncode == 0, begun.stderr
    said = json.loads(begun.stdout)
    wait_for(lambda: any(row.get("epochs", 0) >= 2 for row in status(*storage)))
    assert psutil.pid_exists(said["pid"])
    asked = time.monotonic()
    stopped = nas("nas", "stop", *storage)
    assert stopped.returncode == 0, stopped.stderr
    assert time.monotonic() - asked < 10 + 3  # and a command's own start
    assert f"Stopped process {said['pid']}" in stopped.stdout
    assert "The same command goes on" in Path(said["log"]).read_text()
    (row,) = status(*storage)
    assert row["state"] == "RUNNING"  # left to the next driver
    told = nas(
        "nas", "logs", "--follow", *storage
    )  # comes to its end, because nobody runs the search
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    assert lines[0].endswith(
        f"process {said['pid']} on {socket.gethostname()}  search begins with 0 of 2 trials"
    )
    assert f"trial 0  {row['layout']}  training  epoch 2/40, mAP " in told.stdout
    assert lines[-1].endswith("search stopped")
    resumed = nas("nas", "resume", *storage, "--trials", "1", "--local", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    (row,) = status(*storage)
    assert (row["state"], row["epochs"]) == ("COMPLETE", 40)


def test_what_is_wrong_is_said_before_the_terminal_is_free(tmp_path: Path, digits: Path):
    storage = f"sqlite:///{tmp_path}/nas.db"
    command = [
        "nas-submit",
        "--data",
        digits,
        *SMALL,
        "--storage",
        storage,
        "--local",
        "--detach",
        "--output",
        tmp_path / "runs",
    ]
    refused = nas(*command, "--budget", "1MiB", env={**os.environ, "OMP_NUM_THREADS": "1"})
    if refused.returncode == 0:  # a slow machine: then the log has it
        wait_for(lambda: "budget" in (tmp_path / "runs" / "digits.log").read_text())
    else:
        assert refused.returncode == 2
        assert refused.stderr.startswith("nas-submit: ")
        assert "Traceback" not in refused.stderr


@pytest.fixture
def head() -> Iterator[str]:
    """Address of the Jobs API of a cluster of one machine."""
    pytest.importorskip("ray")
    pytest.importorskip("aiohttp", reason="needs ray[default]")
    port, dashboard = free_port(), free_port()
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"  # as in an activated environment
    environment = {
        **os.environ,
        "PATH": path,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
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


def test_as_a_job_on_a_cluster(head: str, tmp_path: Path, digits: Path):
    server = PostgresServer(tmp_path / "server")
    storage = ["--storage", server.url]
    command = [
        "nas-submit",
        "--cluster",
        head,
        "--data",
        digits,
        *storage,
        "--output",
        tmp_path / "runs",
        *SMALL,
    ]
    command += ["--epochs", "2", "--no-baselines", "--trials", "2"]
    try:
        followed = nas(*command, cwd=tmp_path, timeout=250)
        assert followed.returncode == 0, followed.stdout + followed.stderr
        assert "Leaderboard of digits" in followed.stdout
        assert [row["state"] for row in status(*storage)] == ["COMPLETE"] * 2
        detached = nas(
            "nas", "resume", *storage, "--trials", "3", "--detach", "--json", cwd=tmp_path
        )
        assert detached.returncode == 0, detached.stderr
        assert json.loads(detached.stdout)["cluster"] == head
        wait_for(lambda: [row["state"] for row in status(*storage)] == ["COMPLETE"] * 3)
    finally:
        server.end()
