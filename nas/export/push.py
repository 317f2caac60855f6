"""A copy of a bundle elsewhere: a folder, or a URL of any file system that fsspec knows."""

from __future__ import annotations

from pathlib import Path

from nas.errors import OutputError
from nas.export.bundle import check_target
from nas.export.manifest import MANIFEST
from nas.utils.folders import atomic_folder
from nas.utils.paths import to_path


def push_target(destination: str) -> Path:
    """Find out where the copy of a bundle goes, before anything is exported.

    Args:
        destination: a folder, or a URL of a file system that fsspec knows.

    Returns:
        The destination as a path that `push` takes.

    Raises:
        SpecError: no file system has such URLs.
        MissingDependency: its file system needs a package that is not installed.
        BundleError: it holds files that no bundle has.
        OutputError: it cannot be reached.
    """
    target = to_path(destination)
    try:
        check_target(target, "--push-to")
    except OSError as error:
        raise OutputError(
            f"--push-to {destination!r} cannot be reached: {error.strerror or error}"
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
    remote = hasattr(target, "fs")
    try:
        if remote:
            _clear(target)
            target.mkdir(parents=True, exist_ok=True)
            _copy(bundle, target)
        else:
            with atomic_folder(target, last=MANIFEST) as partial:
                _copy(bundle, partial)
    except Exception as error:  # file systems behind URLs have errors of their own
        left = target if remote else target.with_name(target.name + ".partial")
        raise OutputError(
            f"--push-to {str(target)!r} cannot be written ({error}); {str(left)!r} is partial, "
            f"without a {MANIFEST}"
        ) from error


def _copy(bundle: Path, folder: Path) -> None:
    """Copy the files, the manifest last."""
    for name in sorted((path.name for path in bundle.iterdir()), key=lambda name: name == MANIFEST):
        (folder / name).write_bytes((bundle / name).read_bytes())


def _clear(folder: Path) -> None:
    """Delete the files of a folder, the manifest first."""
    if not folder.exists():
        return
    for path in sorted(folder.iterdir(), key=lambda path: path.name != MANIFEST):
        path.unlink()
