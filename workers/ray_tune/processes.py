"""The processes that Ray starts on this machine: `ray.shutdown` may leave two of them for a minute,
and an interrupted `ray.init` leaves all.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

GRACE_S = 3  # for processes that have been told to end


def end_ray() -> None:
    """Shut Ray down, and end what it has started on this machine and leaves there."""
    import ray

    begun = ray.is_initialized()
    if not begun:  # interrupted while it started: it must not start more while it is ended
        _each(_roots(), "suspend")
    left = [each for root in _roots() for each in (root, *_below(root))]
    ray.shutdown()
    if begun:
        import psutil  # after Ray, which brings it

        _, left = psutil.wait_procs(left, timeout=GRACE_S)
    _each(left, "kill")


def _roots() -> list[Any]:
    """The processes of Ray that this one has started itself."""
    import psutil
    import ray

    folder = str(Path(ray.__file__).parent)
    return [child for child in psutil.Process().children() if folder in _command(child)]


def _command(process: Any) -> str:
    import psutil

    with suppress(psutil.Error):  # has ended
        return " ".join(process.cmdline())
    return ""


def _below(process: Any) -> list[Any]:
    import psutil

    with suppress(psutil.Error):
        return list(process.children(recursive=True))
    return []


def _each(processes: list[Any], method: str) -> None:
    import psutil

    for process in processes:
        with suppress(psutil.Error):
            getattr(process, method)()
