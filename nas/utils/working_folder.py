"""The folder that a user stands in may be a data set or a bundle of others: what this program
starts, and libraries that look there for files of their own, are not to find any in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_ROOT = "/"  # nobody but its owner puts a file there


@contextmanager
def outside_working_folder() -> Iterator[None]:
    """Let a block stand in the root folder, and the Python processes that it starts import nothing
    from where they stand. Python does by itself with `-c` and `-m`, as `multiprocessing` starts
    processes; Ray puts its driver's folder before all others for its workers; Matplotlib reads a
    file `matplotlibrc` there where it is imported.
    """
    changed = {"PYTHONSAFEPATH": "1"}
    if path := os.environ.get("PYTHONPATH"):
        changed["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, path.split(os.pathsep)))
    before = {name: os.environ.get(name) for name in changed}
    folder = _working_folder()
    os.environ.update(changed)
    os.chdir(_ROOT)
    try:
        yield
    finally:
        if folder:
            os.chdir(folder)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _working_folder() -> str | None:
    """None where it has been removed: there is no way back to it."""
    try:
        return os.getcwd()
    except OSError:
        return None
