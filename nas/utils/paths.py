"""Where data and checkpoints are: a path of this machine, or a URL of any file system that fsspec
knows (s3://, gs://, ...).
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from nas.errors import DataError, MissingDependency, OutputError, SpecError


def is_remote(place: str) -> bool:
    """Whether a text is a URL."""
    return "://" in place


def to_path(place: str) -> Path:
    """A place as a path; of a URL one that behaves like `pathlib`'s.

    Raises:
        SpecError: a URL of an unknown kind.
        MissingDependency: its file system needs a package that is not installed.
    """
    if not is_remote(place):
        return Path(place).resolve()
    from upath import UPath

    try:
        path = UPath(place)
        path.fs  # noqa: B018  (imports the file system)
    except ImportError as error:
        raise MissingDependency(
            f"for {place.partition('://')[0]}:// URLs ({error})", "all"
        ) from None
    except ValueError as error:
        raise SpecError(f"{place!r} is no URL that fsspec knows: {error}") from None
    return cast(Path, path)


def study_folder(output: str, study_name: str, study_uuid: str) -> Path:
    """Where the files of a study are, below `run.output`."""
    return to_path(output) / f"{study_name}-{study_uuid[:8]}"


def trial_folders(study: Path, number: int) -> list[Path]:
    """Those of one trial that are there: one for each driver that had it in hands."""
    return sorted(study.glob(f"trial-{number:04d}-*"))


def check_file(key: str, place: str) -> None:
    """Find out early whether a file that a request names is there.

    Raises:
        SpecError: it is not; the text names the key.
    """
    if not to_path(place).is_file():
        raise SpecError(f"{key} {place!r}: there is no such file")


def cache_folder() -> Path:
    """What can be made again: below `$XDG_CACHE_HOME`, or `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "scratch-nas"


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


def make_folder(folder: Path) -> None:
    """Make a folder of this machine, and find out early whether files can be written to it.

    Raises:
        OutputError: they cannot.
    """
    with os_errors_as_output_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


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


@cache
def localize(root: str) -> Path:
    """The folder of a data set on this machine: the folder itself, or for a URL a copy in the
    cache, made once.

    A process asks what is there once, so that a search does not change its data in the middle.

    Raises:
        DataError: the URL cannot be read.
    """
    if not is_remote(root):
        return Path(root)
    remote: Any = to_path(root)
    try:
        found = remote.fs.find(remote.path, detail=True)
    except OSError as error:
        raise DataError(f"data set {root!r} cannot be read: {error}") from None
    if not found:
        raise DataError(f"data set {root!r} is empty or not there")
    listing = sorted(
        (name, info["size"], str(info.get("ETag") or info.get("mtime")))
        for name, info in found.items()
    )
    folder = (
        cache_folder() / "data" / hashlib.sha256(repr((root, listing)).encode()).hexdigest()[:16]
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(
            lock, fcntl.LOCK_EX
        )  # one process copies, the others of this machine wait for it
        if not folder.is_dir():
            partial = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            try:
                remote.fs.get(remote.path.rstrip("/") + "/", f"{partial}/", recursive=True)
            except OSError as error:
                raise DataError(
                    f"data set {root!r} cannot be copied to {str(partial)!r}: {error}"
                ) from None
            partial.rename(folder)
    return folder
