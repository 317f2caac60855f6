"""Paths of this machine and URLs of any file system that fsspec knows (s3://, gs://, ...)."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

from filelock import FileLock

from nas.errors import DataError, MissingDependency, SpecError
from nas.utils.folders import own_folder, scratch_folder
from nas.utils.url_secrets import with_secrets, without_secrets

ARCHIVE = ".zip"
DEEPEST = 3  # folders in each other
LONGEST_NAME = 200  # bytes of a file's name; file systems take 255
HIDDEN = (".", "__MACOSX")
PARTS = {  # folders of a data set that are none themselves
    *("train", "training", "val", "valid", "validation", "test"),
    *("images", "labels", "annotations", "jpegimages", "imagesets", "data"),
}


def is_remote(location: str) -> bool:
    """Tell whether a location is a URL rather than a path of this machine."""
    return "://" in location


def to_path(location: str) -> Path:
    """Make a location a path: `pathlib`'s, or for a URL one that behaves like it, with the values
    of the environment variables that it names (`nas.utils.url_secrets`).

    Raises:
        SpecError: a URL of an unknown kind, or a variable that is not set.
        MissingDependency: its file system needs a package that is not installed.
    """
    if not is_remote(location):
        return real_path(expanded(location))
    from upath import UPath

    try:
        path = UPath(with_secrets(location))
        path.fs  # noqa: B018  (imports the file system)
    except ImportError as error:
        raise MissingDependency(
            f"for {location.partition('://')[0]}:// URLs ({error})", "all"
        ) from None
    except ValueError as error:
        raise SpecError(f"{location!r} is no URL that fsspec knows: {error}") from None
    return cast(Path, path)


def expanded(location: str) -> Path:
    """Put the home of a user in the place of `~` or `~NAME` at the beginning of a path.

    Raises:
        SpecError: there is no such user, or none with a home.
    """
    try:
        return Path(location).expanduser()
    except RuntimeError:
        raise SpecError(f"{location!r} begins with a home that is not known") from None


def real_path(path: Path) -> Path:
    """Follow the links of a path, as `Path.resolve` does; one that leads to itself stays, as a
    path that nothing is at.
    """
    return Path(os.path.realpath(path))


def short_name(name: str) -> str:
    """Shorten the name of a file so that there is room for more before and behind it; two names
    that differ still do.
    """
    written = os.fsencode(name)
    if len(written) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(written).hexdigest()[:8]
    return f"{written[:LONGEST_NAME].decode(errors='ignore')}-{digest}"


def absolute(location: str) -> str:
    """Make a path absolute; a URL stays as it is."""
    return location if is_remote(location) else str(to_path(location))


def cache_folder() -> Path:
    """Give the folder for files that can be made again, below `$XDG_CACHE_HOME` or `~/.cache`;
    for a user without a home, as in some containers, below the one for temporary files.

    Raises:
        OutputError: the user has no home, and somebody else has such a folder among temporary
            files.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = Path(base) if base else Path.home() / ".cache"
    except RuntimeError:
        folder = own_folder(Path(tempfile.gettempdir()) / f"cache-{os.getuid()}")
    return folder / "scratch-nas"


def is_copied(root: str) -> bool:
    """Tell whether a data set is used from a copy in the cache: it is a URL, or a zip file."""
    return is_remote(root) or root.lower().endswith(ARCHIVE)


@cache
def localize(root: str) -> Path:
    """Give the folder of a data set on this machine, copied from its URL where it has one, and
    unpacked where it is a zip file; where it holds one folder alone (`cells/cells/`,
    `VOCdevkit/VOC2012/`), that one.

    The copy is in the cache and is made once for each state of the files. A process asks for that
    state once, so that a search does not change its data in the middle.

    Args:
        root: a folder, a zip file, or the URL of one.

    Raises:
        DataError: the URL or the zip file cannot be read.
    """
    here = _copied(root) if is_remote(root) else expanded(root)
    archive = root.lower().endswith(ARCHIVE) and here.is_file()
    return _content(_unpacked(here) if archive else here)


def _copied(root: str) -> Path:
    remote: Any = to_path(root)
    try:
        files = _remote_files(remote, root)
        listing = sorted(
            (name, info.get("size"), str(info.get("ETag") or info.get("mtime")))
            for name, info in files.items()
        )
    except Exception as error:  # each file system's library has errors of its own
        said = _without_secrets(error, root)
        raise DataError(f"data set {root!r} cannot be read: {said}") from None
    if not files:
        raise DataError(f"data set {root!r} is empty or not there")
    if strange := [name for name in files if ".." in name.split("/")]:
        raise DataError(f"data set {root!r} lists a file that is not in it, {strange[0]!r}")

    def copy(partial: Path) -> None:
        try:
            if [*files] == [remote.path]:
                remote.fs.get_file(remote.path, str(partial))
            else:
                remote.fs.get(remote.path.rstrip("/") + "/", f"{partial}/", recursive=True)
        except Exception as error:  # also of names that lead out of the copy
            said = _without_secrets(error, root)
            raise DataError(
                f"data set {root!r} cannot be copied to {str(partial)!r}: {said}"
            ) from None

    return _once((root, listing), copy, ARCHIVE if root.lower().endswith(ARCHIVE) else "")


def _remote_files(remote: Any, root: str) -> dict[str, dict[str, Any]]:
    """What is known of each file by its name. A zip file is asked for by itself: a web server would
    send all of it as the page that lists it.
    """
    if root.lower().endswith(ARCHIVE):
        info = remote.fs.info(remote.path)
        if info["type"] == "file":
            return {remote.path: info}
    found: dict[str, dict[str, Any]] = remote.fs.find(remote.path, detail=True)
    return found


def _without_secrets(error: Exception, root: str) -> str:
    """One line on an error."""
    said = " ".join(str(error).split()) or type(error).__name__
    return without_secrets(said, root)


def _unpacked(archive: Path) -> Path:
    """The folder of what is in a zip file."""
    stat = archive.stat()

    def unpack(partial: Path) -> None:
        partial.mkdir()
        try:
            with zipfile.ZipFile(archive) as opened:
                needed = sum(member.file_size for member in opened.infolist())
                if needed > (free := shutil.disk_usage(partial).free):
                    raise DataError(
                        f"zip file {str(archive)!r} needs {needed:,} bytes in {partial.parent}; "
                        f"{free:,} are free"
                    )
                opened.extractall(partial)
        except (OSError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"zip file {str(archive)!r} cannot be unpacked: {error}") from None

    return _once((str(archive.resolve()), stat.st_size, stat.st_mtime_ns), unpack)


def _content(folder: Path) -> Path:
    """A folder, or the one that is all it holds, unless its name says that it is a part."""
    for _ in range(DEEPEST):
        try:
            inside = [each for each in folder.iterdir() if not each.name.startswith(HIDDEN)]
        except OSError:  # it is said where the data set is looked for
            return folder
        if len(inside) != 1 or not inside[0].is_dir() or inside[0].name.lower() in PARTS:
            return folder
        folder = inside[0]
    return folder


def _once(state: object, fill: Callable[[Path], None], suffix: str = "") -> Path:
    """The copy of a data set in the cache, made by the first process that asks for it."""
    name = hashlib.sha256(repr(state).encode()).hexdigest()[:16] + suffix
    copy = cache_folder() / "data" / name
    if copy.exists():  # without its lock, which may be another user's
        return copy
    copy.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{copy}.lock"):  # one process copies, the others of this machine wait for it
        if not copy.exists():
            with scratch_folder(copy.parent, name) as made:
                fill(made / "content")
                (made / "content").rename(copy)
    return copy
