"""What a command may do with the content of others: work or refuse it in one line, in bounded time
and memory, and write nothing but what it was asked for.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from helpers.commands import Outcome, outcome_of
from nas.cli.runner import new_app, run

SLOWEST_S = 20  # of a processor
LONGEST_S = 600  # of waiting, for a pipe for example
MOST_BYTES = 2 * 2**30
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {  # events of Python that change what their arguments name, by how many these are
    **dict.fromkeys(("os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod"), 1),
    **dict.fromkeys(("os.chown", "os.utime"), 1),
    **dict.fromkeys(("os.rename", "os.link", "os.symlink"), 2),
}
_STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "socket.bind")
_allowed: list[Path] = []  # folders; none while nobody looks


class OutOfBoundsError(BaseException):
    """A command does what it must not; no `except Exception` hides it."""


def refused_in_one_line(ended: Outcome) -> bool:
    """Whether a command refused what it was given; it must have done so in one line, or worked."""
    lines = ended.err.splitlines()
    assert ended.code in (0, 2), ended
    assert ended.code == 0 or (len(lines) == 1 and lines[0].startswith("nas: ")), ended
    assert "Traceback" not in ended.err, ended
    return ended.code == 2


def command_end(act: Callable[[], object], *folders: Path) -> Outcome:
    """Do something as a command of `nas` does it, within bounds.

    Args:
        act: is called without arguments.
        folders: what may be written to.
    """

    def command() -> None:
        act()

    app = new_app()
    app.command()(command)
    with patch.object(sys, "argv", ["nas"]), bounded(*folders):
        return outcome_of(lambda: run(app, "nas"))


@contextmanager
def bounded(*folders: Path) -> Iterator[None]:
    """Let a block take 20 s of the processor and 2 GiB more memory than there is now, and write to
    these folders alone; no program but git is started, no network is asked.

    Raises:
        OutOfBoundsError: it does something else.
        MemoryError: it asks for more memory.
    """

    def too_slow(*_: Any) -> None:
        raise OutOfBoundsError(f"more than {SLOWEST_S} s of work, or {LONGEST_S} s of waiting")

    limits = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + MOST_BYTES, limits[1]))
    before = signal.signal(signal.SIGPROF, too_slow)
    signal.setitimer(signal.ITIMER_PROF, SLOWEST_S)
    waiting = threading.Timer(LONGEST_S, os.kill, (os.getpid(), signal.SIGPROF))
    waiting.start()
    _allowed[:] = [folder.resolve() for folder in folders]
    try:
        yield
    finally:
        _allowed.clear()
        waiting.cancel()
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        resource.setrlimit(resource.RLIMIT_DATA, limits)


def _data_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData"))


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _allowed:
        return
    if event == "open":
        path, _, flags = arguments
        if isinstance(flags, int) and flags & _WRITES and path != os.devnull:
            _check(event, path)
    elif event in _CHANGES:
        for path in arguments[: _CHANGES[event]]:
            _check(event, path)
    elif event in _STARTS or (event == "subprocess.Popen" and arguments[0] != "git"):
        raise OutOfBoundsError(f"{event} {arguments}")


def _check(event: str, path: Any) -> None:
    if isinstance(path, int):  # a file that is open already
        return
    place = Path(os.path.realpath(Path(os.fsdecode(path)).parent))
    if not any(place.is_relative_to(folder) for folder in _allowed):
        raise OutOfBoundsError(f"{event} {path!r}")


sys.addaudithook(_audit)
