"""Paths of this machine and URLs of any file system that fsspec knows (s3://, gs://, ...)."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, cast

from filelock import FileLock

from nas.errors import DataError, MissingDependency, SpecError


def is_remote(location: str) -> bool:
    """Tell whether a location is a URL rather than a path of this machine."""
    return "://" in location


def to_path(location: str) -> Path:
    """Make a location a path: `pathlib`'s, or for a URL one that behaves like it.

    Raises:
        SpecError: a URL of an unknown kind.
        MissingDependency: its file system needs a package that is not installed.
    """
    if not is_remote(location):
        return Path(location).expanduser().resolve()
    from upath import UPath

    try:
        path = UPath(location)
        path.fs  # noqa: B018  (imports the file system)
    except ImportError as error:
        raise MissingDependency(
            f"for {location.partition('://')[0]}:// URLs ({error})", "all"
        ) from None
    except ValueError as error:
        raise SpecError(f"{location!r} is no URL that fsspec knows: {error}") from None
    return cast(Path, path)


def cache_folder() -> Path:
    """Give the folder for files that can be made again, below `$XDG_CACHE_HOME` or `~/.cache`;
    for a user without a home, as in some containers, below the one for temporary files.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = Path(base) if base else Path.home() / ".cache"
    except RuntimeError:
        folder = Path(tempfile.gettempdir()) / f"cache-{os.getuid()}"
    return folder / "scratch-nas"


@cache
def localize(root: str) -> Path:
    """Give the folder of a data set on this machine, copied from its URL where it has one.

    The copy is in the cache and is made once for each state of the files behind the URL. A process
    asks for that state once, so that a search does not change its data in the middle.

    Args:
        root: a folder, or a URL.

    Raises:
        DataError: the URL cannot be read.
    """
    if not is_remote(root):
        return Path(root).expanduser()
    remote: Any = to_path(root)
    try:
        files = remote.fs.find(remote.path, detail=True)
    except OSError as error:
        raise DataError(f"data set {root!r} cannot be read: {error}") from None
    if not files:
        raise DataError(f"data set {root!r} is empty or not there")
    listing = sorted(
        (name, info["size"], str(info.get("ETag") or info.get("mtime")))
        for name, info in files.items()
    )
    folder = (
        cache_folder() / "data" / hashlib.sha256(repr((root, listing)).encode()).hexdigest()[:16]
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # one process copies, the others of this machine wait for it
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
