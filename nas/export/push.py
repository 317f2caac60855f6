"""A copy of a bundle elsewhere: a folder, or a URL of any file system that fsspec knows."""

from __future__ import annotations

import shutil
from pathlib import Path

from nas.errors import OutputError
from nas.export.bundle import check_target
from nas.export.manifest import MANIFEST
from nas.utils.paths import to_path


def push_target(place: str) -> Path:
    """Where a bundle goes, checked before anything is exported.

    Raises:
        SpecError, MissingDependency: no file system for that URL.
        BundleError: it holds something that no bundle has.
        OutputError: the place cannot be reached.
    """
    target = to_path(place)
    try:
        check_target(target, "--push-to")
    except OSError as error:
        raise OutputError(
            f"--push-to {place!r} cannot be reached: {error.strerror or error}"
        ) from error
    return target


def push(bundle: Path, target: Path) -> None:
    """Copy a bundle; what was there before is replaced.

    A folder appears whole: it is copied beside its place and renamed. Object stores cannot rename
    folders: there the old manifest goes first and the new one comes last, and what has none is
    partial.

    Raises:
        OutputError: it cannot be written; the text says what lies there now.
    """
    remote = getattr(target, "fs", None)
    place = target if remote else target.with_name(target.name + ".partial")
    try:
        if remote:
            _clear(target)
        else:
            shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True, exist_ok=True)
        for name in sorted(
            (path.name for path in bundle.iterdir()), key=lambda name: name == MANIFEST
        ):
            (place / name).write_bytes((bundle / name).read_bytes())
        if not remote:
            shutil.rmtree(target, ignore_errors=True)
            place.rename(target)
    except Exception as error:  # file systems behind URLs have errors of their own
        raise OutputError(
            f"--push-to {str(target)!r} cannot be written ({error}); {str(place)!r} is partial, "
            f"without a {MANIFEST}"
        ) from error


def _clear(folder: Path) -> None:
    if not folder.exists():
        return
    for path in sorted(folder.iterdir(), key=lambda path: path.name != MANIFEST):
        path.unlink()
