"""Reading files that somebody else may have made: regular ones alone."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading. A pipe, a socket or a device, from which reading may never end, is
    refused.

    Args:
        path: on this machine, or behind a URL.

    Raises:
        OSError: it is not there, cannot be read, or is no regular file.
        ValueError: no disk has a file of such a name.
    """
    if hasattr(path, "fs"):
        return path.open("rb")
    number = os.open(path, _FLAGS)
    if stat.S_ISREG(os.fstat(number).st_mode):
        return os.fdopen(number, "rb")
    os.close(number)
    raise OSError(errno.EINVAL, "is no regular file", str(path))


def read_regular(path: Path) -> bytes:
    """Read a whole file; arguments and errors as those of `open_regular`."""
    with open_regular(path) as file:
        return file.read()
