"""Folders that this program makes, puts in the place of others, and removes: its own alone.

A folder is its own if it lies where it made it under a name that nobody had, or has its mark
inside.
"""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nas.errors import OutputError

MARK = ".scratch-nas"
SCRATCH = ".scratch-nas-"  # in the names of folders that are gone in the end
BEFORE = "before"  # in them: what was in the place that is to be filled
FRESH_S = 60  # younger ones may not be locked yet by who makes them


def claim_folder(folder: Path) -> None:
    """Make a folder whose content is this program's, or find it again.

    Args:
        folder: on this machine.

    Raises:
        OutputError: something of somebody else is there, or the disk takes no folder.
    """
    mark = folder / MARK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if {path.name for path in folder.iterdir()} - {MARK} and not mark.exists():
            raise OutputError(
                f"{str(folder)!r} holds files that scratch-nas has not made: move them, or name "
                "another place"
            )
        mark.touch()
    except OSError as error:
        raise OutputError(f"{str(folder)!r} cannot be written: {error.strerror}") from error


def remove_claimed(folder: Path, below: str = "") -> None:
    """Remove a folder of `claim_folder` with all that is in it; others stay as they are.

    Args:
        folder: the folder.
        below: name of a folder in it that alone is removed.
    """
    if (folder / MARK).is_file() and not folder.is_symlink():
        shutil.rmtree(folder / below, ignore_errors=True)


def own_folder(folder: Path) -> Path:
    """Make a folder below one that everybody can write to, as that for temporary files, or find it
    again.

    Returns:
        The folder, to which this user alone can write.

    Raises:
        OutputError: somebody else has made it, or can write to it.
    """
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    state = folder.lstat()
    mine = stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid()
    if not mine or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OutputError(
            f"{str(folder)!r} must be a folder of this user that nobody else can write to: remove "
            "it, or name another place for temporary files (TMPDIR, XDG_CACHE_HOME)"
        )
    return folder


@contextmanager
def scratch_folder(parent: Path, name: str) -> Iterator[Path]:
    """Give an empty folder of a name that nobody had, and remove it in the end if it is still
    there; what processes that were killed have left of that name is removed before.

    Args:
        parent: the folder that it lies in, made where it is not there.
        name: what its own name begins with, behind a dot.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f".{glob.escape(name)}{SCRATCH}*"):
        _remove_if_left(left, parent / name)
    folder = parent / f".{name}{SCRATCH}{uuid.uuid4().hex[:12]}"
    folder.mkdir()
    held = os.open(folder, os.O_RDONLY)  # as long as this process lives
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def _remove_if_left(folder: Path, place: Path) -> None:
    """What was in the place goes back, where the process was killed between two renames."""
    with suppress(OSError):  # in use, or gone meanwhile
        if time.time() - folder.lstat().st_mtime < FRESH_S:
            return
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (folder / BEFORE).is_dir() and not place.exists():
                (folder / BEFORE).rename(place)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(held)


@contextmanager
def atomic_folder(folder: Path, last: str = "") -> Iterator[Path]:
    """Give an empty folder to fill, on this machine, and put it in a folder's place in the end;
    what was there before is gone then, and after an error as it was.

    A folder that cannot be renamed, a mount point for example, keeps its place: the files move in
    one by one, and those of before that have no successor go out after that.

    Args:
        folder: the place, or a link to it. Whoever calls has found out that what is there may go.
        last: name of the file that moves in last.

    Raises:
        OSError: there is no room beside the folder and none in it.
        OutputError: what was in the folder has changed meanwhile.
    """
    place = folder.resolve()
    with scratch_folder(_room_for(place), place.name) as made:
        content, before = made / "content", _state(place, made)
        content.mkdir()
        yield content
        if _state(place, made) != before:
            raise OutputError(f"{str(folder)!r} was changed by somebody meanwhile: it stays so")
        if not _moved(content, place, made / BEFORE):
            _moved_in(content, place, made, last)


def _state(place: Path, made: Path) -> dict[str, tuple[int, int]]:
    """What is in a folder, and when it was written."""
    entries = [path for path in place.iterdir() if path != made] if place.is_dir() else []
    states = {path.name: path.lstat() for path in entries}
    return {name: (state.st_mtime_ns, state.st_size) for name, state in states.items()}


def _room_for(place: Path) -> Path:
    """Where files for a folder are made: beside it, from where they can be renamed into it."""
    beside = place.parent
    if place.is_dir() and (os.path.ismount(place) or not os.access(beside, os.W_OK | os.X_OK)):
        return place
    return beside


def _moved(content: Path, place: Path, before: Path) -> bool:
    """Whether a folder could be put in the place of another as a whole."""
    if content.is_relative_to(place):
        return False
    if place.exists():
        try:
            place.rename(before)
        except OSError:  # in use as a mount, or of another file system
            return False
    try:
        content.rename(place)
    except OSError:
        if before.exists():
            before.rename(place)
        raise
    return True


def _moved_in(content: Path, place: Path, made: Path, last: str) -> None:
    """Move files into a folder that stays, and those of before out."""
    before = {path.name for path in place.iterdir()} - {made.name}
    names = sorted((path.name for path in content.iterdir()), key=lambda name: (name == last, name))
    with scratch_folder(place, "new") as inside:  # of the same file system, unlike `content`
        for name in names:
            shutil.move(content / name, inside / name)
        for name in names:
            os.replace(inside / name, place / name)
    for name in before - {*names}:
        with suppress(IsADirectoryError, PermissionError):
            (place / name).unlink()
