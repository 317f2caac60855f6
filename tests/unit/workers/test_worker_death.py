"""What is said of a worker process of Ray that died, from texts as Ray 2.60 writes them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("ray")
from nas.errors import StudyError
from workers.ray_tune.start_monitor import START_S, StartMonitor
from workers.ray_tune.worker_death import death_text

DIED = """Failure # 1 (occurred at 2026-12-01_07-24-36)
The actor died unexpectedly before finishing this task.
	class_name: with_resources.<locals>.ResourceTrainable
	pid: 27692
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit \
detail: Worker unexpectedly exits with a connection error code 2. End of file. Some common causes \
include: (1) the process was killed by the OOM killer due to high memory usage, (2) ray stop \
--force was called, or (3) the worker crashed unexpectedly due to SIGSEGV or another unexpected \
error."""
TERMINATED = """The actor died unexpectedly before finishing this task.
	pid: 27692
Worker exit type: SYSTEM_ERROR Worker exit detail: Worker exits unexpectedly. Worker exits with an \
exit code 1. The process receives a SIGTERM."""
MONITORED = """The actor died unexpectedly before finishing this task.
	pid: 27692
The actor is dead because its worker process has died. Task was killed due to the node running low \
on memory.
Memory on the node (IP: 10.0.0.1, ID: ab) where the lease (actor ID: cd) was running was \
15.21GB / 16.00GB (0.950625), which exceeds the memory usage threshold of 0.95."""
UNBORN = """The actor died because of an error raised in its creation task, \x1b[36mray::X()\x1b[39m
  File "x.py", line 1, in __init__
ModuleNotFoundError: No module named 'nas'"""


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in ("worker_death", "start_monitor"):
        monkeypatch.setattr(f"workers.ray_tune.{module}.log_folder", lambda: tmp_path)
    return tmp_path


def test_a_signal_that_leaves_nothing_is_sigkill(logs: Path):
    (logs / "worker-ab-01-27692.err").touch()
    (logs / "worker-ab-01-1.err").write_text("*** SIGSEGV received at time=1 ***\n")
    text = death_text(DIED)
    assert text.startswith("the worker process died by signal 9 (SIGKILL), probably out of memory")
    assert "\n" not in text


@pytest.mark.parametrize(("name", "number"), [("SIGSEGV", 11), ("SIGABRT", 6), ("SIGBUS", 7)])
def test_a_crash_is_named(logs: Path, name: str, number: int):
    (logs / "worker-ab-01-27692.err").write_text(f"*** {name} received at time=1 on cpu 1 ***\n")
    assert f"died by signal {number} ({name}), " in death_text(DIED)


def test_a_worker_whose_log_is_elsewhere(logs: Path):
    assert death_text(DIED) == (
        "the worker process died on another machine: crashed, or probably out of memory"
    )


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (TERMINATED, "the worker process died by signal 15 (SIGTERM), sent from outside"),
        (
            MONITORED,
            "Ray ended the worker process, probably out of memory: its machine had used 15.21GB / "
            "16.00GB",
        ),
        (UNBORN, "the worker process could not begin: ModuleNotFoundError: No module named 'nas'"),
        ("", "the worker process died"),
    ],
)
def test_other_ends(logs: Path, said: str, text: str):
    assert death_text(said) == text


def test_workers_that_never_come(logs: Path, monkeypatch: pytest.MonkeyPatch):
    (logs / "raylet.err").write_text("Traceback\nSystemExit: no library here\n")
    now_s, warned = [0.5], []
    monkeypatch.setattr("time.monotonic", lambda: now_s[0])
    search = SimpleNamespace(warn=warned.append)
    own, joined, content = (StartMonitor(search, joined=here) for here in (False, True, False))
    pending, running = SimpleNamespace(status="PENDING"), SimpleNamespace(status="RUNNING")
    for monitor in (own, joined, content):
        monitor.look([])
        monitor.look([pending])
    content.look([pending, running])
    now_s[0] += START_S - 1
    own.look([pending])
    now_s[0] += 2
    content.look([pending])
    with pytest.raises(StudyError, match="has come in 300 s; one said: SystemExit: no library"):
        own.look([pending])
    for _ in range(2):
        joined.look([pending])
    assert warned == ["no worker process has come in 300 s: the cluster may be busy"]
