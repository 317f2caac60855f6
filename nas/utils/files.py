"""Writing files so that they are whole or not there, on this machine or behind a URL."""

from __future__ import annotations

import glob
import io
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from nas.errors import OutputError, SpecError, UserError
from nas.utils.paths import to_path

PARTIAL = ".partial"  # ends the names of files that are being written


def check_file(key: str, location: str) -> None:
    """Check that a file which a request names is there.

    Args:
        key: the key or flag that names it.
        location: the file, or its URL.

    Raises:
        SpecError: there is no such file; the text names the key.
    """
    if not to_path(location).is_file():
        raise SpecError(f"{key} {location!r}: there is no such file")


def atomic_write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file whole or not at all: `write` fills a neighbouring one, which is then moved.

    Args:
        path: the file, on this machine or behind a URL; one that is there is replaced.
        write: takes an open binary file and writes the content to it.

    Raises:
        OutputError: the disk is full or away.
    """
    # Two processes may write the same file: the later one replaces it, neither takes the other's.
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}{PARTIAL}")
    try:
        with os_errors_as_output_error(path):
            if not (remote := _file_system(path)):
                with open(partial, "wb") as file:
                    write(file)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(partial, path)
            else:
                content = io.BytesIO()
                write(content)
                partial.write_bytes(content.getvalue())
                remote.mv(str(partial), str(path))
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def remove_written(path: Path) -> None:
    """Remove a file of `atomic_write`, if it is there, and what writers that were killed have left
    beside it. Nobody may be writing it.

    Args:
        path: the file, on this machine or behind a URL.
    """
    path.unlink(missing_ok=True)
    for left in path.parent.glob(f"{glob.escape(path.name)}.*{PARTIAL}"):
        left.unlink(missing_ok=True)


def _file_system(path: Path) -> Any:
    """File system behind a URL's path; None for a path of this machine."""
    return getattr(path, "fs", None)


def append_line(path: Path, line: str) -> None:
    """Add a line to a file, which is made where it is not there. Object stores cannot append: there
    the file is written anew.

    Raises:
        OutputError: the disk is full or away.
    """
    with os_errors_as_output_error(path):
        if not _file_system(path):
            with path.open("a") as file:
                file.write(line + "\n")
        else:
            path.write_text((path.read_text() if path.exists() else "") + line + "\n")


def ensure_writable(
    folder: Path, name: str = "", error_type: type[UserError] = OutputError
) -> None:
    """Make a folder where it is not there yet, and find out early whether it takes files.

    Args:
        folder: on this machine or behind a URL.
        name: what the error calls it; default: its path.
        error_type: what is raised.

    Raises:
        UserError: the folder cannot be made or written; an `OutputError` unless asked otherwise.
    """
    probe = folder / f".write-{uuid.uuid4()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise error_type(
            f"{name or repr(str(folder))} cannot be written: {error.strerror or error}"
        ) from error


@contextmanager
def os_errors_as_output_error(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into an `OutputError`, also one that PyTorch's writer hides
    behind an error of its own.

    Args:
        path: what the block writes, for the text of the error.

    Raises:
        OutputError: the system refused to write.
    """
    try:
        yield
    except Exception as error:
        refused = error if isinstance(error, OSError) else error.__context__
        if not isinstance(refused, OSError):
            raise
        raise OutputError(
            f"{str(path)!r} cannot be written: {refused.strerror or refused}"
        ) from error
