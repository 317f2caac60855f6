"""Processes that are killed while a search trains: a line with the likely cause in every record."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from helpers.commands import Background, Run, run_program
from helpers.studies import trials_so_far
from optuna.trial import TrialState

NO_MEMORY = "died by signal 9 (SIGKILL), probably out of memory; this machine has "
PROGRAM = "import sys\nsys.argv[0] = 'nas-submit'\nfrom nas.cli.submit import main\n"


def words(folder: Path, digits: Path, *more: str) -> list[object]:
    fixed = ["--data", digits, "--storage", f"sqlite:///{folder}/nas.db", "--output", folder]
    fixed += ["--space", "tiny", "--detector", "fcos", "--image-size", "32", "--sampler", "random"]
    return [*fixed, "--no-baselines", *more]


def children(process: Background, word: str) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.Error):
            found += [child] if word in " ".join(child.cmdline()) else []
    return found


def test_a_killed_loader_costs_no_candidate(tmp_path: Path, digits: Path, nas: Run):
    more = ["--local", "--epochs", "4", "--trials", "1", "--set", "recipe.loader_workers=1"]
    with Background(tmp_path / "log", "nas-submit", *words(tmp_path, digits, *more)) as search:
        search.wait_until(lambda: "epoch 1/4" in search.printed())
        children(search, "nas-submit")[0].kill()
        assert search.wait() == 0, search.printed()
    line = next(line for line in search.printed().splitlines() if "requeued" in line)
    assert "(a process that reads images died" in line  # PyTorch does not always know the signal
    assert "probably out of memory; this machine has " in line
    assert "GiB predicted, 16.00 GiB allowed)" in line
    assert "Traceback" not in search.printed()
    (trial,) = trials_so_far(f"sqlite:///{tmp_path}/nas.db")
    assert trial.state == TrialState.COMPLETE
    assert "probably out of memory" in nas("logs", "--storage", f"sqlite:///{tmp_path}/nas.db").out


@pytest.mark.long
def test_a_candidate_whose_workers_die_fails_and_the_search_goes_on(
    tmp_path: Path, digits: Path, nas: Run
):
    pytest.importorskip("ray")
    more = ["--epochs", "2", "--trials", "1", "--concurrent", "1"]
    killed: set[int] = set()
    with Background(tmp_path / "log", "nas-submit", *words(tmp_path, digits, *more)) as search:
        while len(killed) < 3:
            search.wait_until(lambda: {c.pid for c in children(search, "Trainable")} - killed)
            for worker in children(search, "Trainable"):
                with suppress(psutil.Error):
                    os.kill(worker.pid, signal.SIGKILL)
                killed.add(worker.pid)
        assert search.wait() == 0, search.printed()
    printed = search.printed()
    assert "Traceback" not in printed
    assert "raylet" not in printed
    first, second = trials_so_far(f"sqlite:///{tmp_path}/nas.db")
    assert (first.state, second.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert first.user_attrs["layout_id"] != second.user_attrs["layout_id"]
    reason = first.user_attrs["fail_reason"]
    assert NO_MEMORY in reason
    assert reason.endswith(", 3 times")
    logged = nas("logs", "--storage", f"sqlite:///{tmp_path}/nas.db").out
    for lines in (printed, logged):
        assert sum(NO_MEMORY in line for line in lines.splitlines()) == 3


@pytest.mark.long
def test_workers_that_never_come_end_the_search(tmp_path: Path, digits: Path):
    pytest.importorskip("ray")
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if any('default_worker' in word for word in sys.orig_argv):\n"
        "    sys.exit('no library here')\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    program = f"{PROGRAM}import workers.ray_tune.start_monitor as m\nm.START_S = 10\nmain()"
    ended = run_program(
        sys.executable,
        "-c",
        program,
        *words(tmp_path, digits),
        env={**os.environ, "PYTHONPATH": path},
    )
    assert ended.code == 2
    assert ended.err.splitlines()[-1].startswith(
        "nas-submit: no worker process of Ray has come in 10 s; one said: SystemExit: no library "
        "here; Ray's logs are in "
    )
    assert "Traceback" not in ended.err
