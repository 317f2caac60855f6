"""`nas-submit` that sends SIGKILL to one of its own processes inside a phase of the work, for
`faults.py`.

Reads from the environment: DOOM_FOLDER, where it notes what it did; DOOM_PHASE, one of ask, report,
tell, checkpoint; DOOM_ENTRY, at which entry into that phase; DOOM_DELAY_S, how long after it;
DOOM_VICTIM, one of driver, worker, raylet, server; DOOM_SERVER, process id of the database server.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import psutil

import nas.training.trainer
import workers.ray_tune.trainable
from nas.cli.submit import main
from nas.reports import EpochReport
from nas.search.search import Search

inside: list[str] = []  # phases that this process is in, innermost last


def victims(kind: str, driver: int) -> list[psutil.Process]:
    """Processes to kill."""
    if kind == "driver":
        return [psutil.Process(driver)]
    if kind == "server":
        server = psutil.Process(int(os.environ["DOOM_SERVER"]))
        return [server, *server.children(recursive=True)]
    if kind == "worker" and os.getpid() != driver:
        return [psutil.Process()]
    found = []
    for child in psutil.Process(driver).children(recursive=True):
        with suppress(psutil.Error):
            if ("Trainable" if kind == "worker" else "raylet/raylet") in child.cmdline()[0]:
                found.append(child)
    return found[:1]


def kill(phase: str, doomed: list[psutil.Process]) -> None:
    """A moment after the phase was entered; notes the phase that it hits."""
    time.sleep(float(os.environ["DOOM_DELAY_S"]))
    hit = inside[-1] if inside and doomed else "none"
    Path(os.environ["DOOM_FOLDER"], "hit").write_text(f"{phase} {hit}")
    for process in doomed:
        with suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)


def within(phase: str, driver: int, work: Callable[..., Any]) -> Callable[..., Any]:
    """Work that is known to be a phase, and arms the kill when it is the one."""

    def call(*args: Any, **kwargs: Any) -> Any:
        inside.append(phase)
        try:
            if phase == os.environ["DOOM_PHASE"]:
                entries = Path(os.environ["DOOM_FOLDER"], "entries")  # of all processes
                with entries.open("a") as file:
                    file.write("x")
                if entries.stat().st_size == int(os.environ["DOOM_ENTRY"]):
                    doomed = victims(
                        os.environ["DOOM_VICTIM"], driver
                    )  # takes longer than some phases
                    threading.Thread(target=kill, args=(phase, doomed), daemon=True).start()
            return work(*args, **kwargs)
        finally:
            inside.pop()

    return call


class DoomedTrainable(workers.ray_tune.trainable.CandidateTrainable):
    """A worker whose checkpoints are a phase."""

    def reports(self, config: dict[str, Any]) -> Iterator[EpochReport]:
        if not inside and nas.training.trainer.save_checkpoint.__module__ != "__main__":
            driver = int(os.environ["DOOM_DRIVER"])
            nas.training.trainer.save_checkpoint = within(
                "checkpoint", driver, nas.training.trainer.save_checkpoint
            )
        yield from super().reports(config)


if __name__ == "__main__":
    this = os.getpid()
    os.environ["DOOM_DRIVER"] = str(this)
    Search.ask = within("ask", this, Search.ask)  # type: ignore[method-assign]
    Search.report = within("report", this, Search.report)  # type: ignore[method-assign]
    optuna.Study.tell = within("tell", this, optuna.Study.tell)  # type: ignore[method-assign]
    workers.ray_tune.trainable.CandidateTrainable = DoomedTrainable  # type: ignore[misc]
    sys.argv[0] = "nas-submit"
    main()
