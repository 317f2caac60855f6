"""Why a worker process of Ray died, as far as Ray and the worker's own log tell."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from nas.utils.process_death import NO_MEMORY, signal_text
from workers.ray_tune.ray_internals import log_folder

_PROCESS = re.compile(r"^\s*pid: (\d+)", re.MULTILINE)
_MEMORY = re.compile(r"running low on memory.*?was ([\d.]+\w+ / [\d.]+\w+)", re.DOTALL)
_RAISED = re.compile(r"^(?:\w+\.)*(\w+(?:Error|Exception|Interrupt|Exit)\b.*)$", re.MULTILINE)
_CRASHED = re.compile(r"\*\*\* (SIG[A-Z]+) received")


def death_text(said: str) -> str:
    """Say in one line why a worker died.

    Args:
        said: the text of the error that ended the Ray trial.
    """
    if "creation task" in said:
        raised = _RAISED.findall(said)
        return f"the worker process could not begin{f': {raised[-1]}' if raised else ''}"
    if found := _MEMORY.search(said):
        return f"Ray ended the worker process, {NO_MEMORY}: its machine had used {found[1]}"
    if "SIGTERM" in said:
        return f"the worker process died by {signal_text(signal.SIGTERM)}"
    if "End of file" in said or "connection error" in said:
        return f"the worker process died {_abruptly(said)}"
    return "the worker process died"


def _abruptly(said: str) -> str:
    """A crash leaves its signal in the worker's log, SIGKILL nothing; the log of a worker on
    another machine is there.
    """
    process, folder = _PROCESS.search(said), log_folder()
    logs = sorted(folder.glob(f"worker-*-{process[1]}.err")) if process and folder else []
    if not logs:
        return f"on another machine: crashed, or {NO_MEMORY}"
    return f"by {signal_text(_signal_in(logs[-1]))}"


def _signal_in(log: Path) -> int:
    crashes = _CRASHED.findall(log.read_text(errors="replace"))
    return int(getattr(signal, crashes[-1], signal.SIGKILL) if crashes else signal.SIGKILL)
