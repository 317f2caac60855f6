"""Files that are whole or not there, on this machine or behind a URL."""

from __future__ import annotations

import io
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from nas.errors import OutputError, SpecError, UserError
from nas.utils.paths import to_path


def check_file(key: str, location: str) -> None:
    """Find out early whether a file that a request names is there.

    Raises:
        SpecError: it is not; the text names the key.
    """
    if not to_path(location).is_file():
        raise SpecError(f"{key} {location!r}: there is no such file")


def atomic_write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a neighbouring file and move it to `path`; on failure nothing is left of it.

    Raises:
        OutputError: the disk is full or away.
    """
    partial = path.with_name(path.name + ".partial")
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


def _file_system(path: Path) -> Any:
    """Of a URL's path; None for this machine's own."""
    return getattr(path, "fs", None)


def append_line(path: Path, line: str) -> None:
    """Add a line to a file; object stores know no appending, there it is written anew.

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
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder beside `folder` to fill, on this machine, and put it in its place in the
    end; what was there before is gone then. After an error `NAME.partial` is left, and `folder` as
    it was.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)


@contextmanager
def os_errors_as_output_error(path: Path) -> Iterator[None]:
    """What the system refuses inside is an `OutputError`; PyTorch's writer hides it behind an error
    of its own.
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
