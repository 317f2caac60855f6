"""The list of a bundle's files with their hashes. It proves that nothing has changed since it was
written, not who wrote it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from nas.errors import BundleError
from search_spaces.regular_files import read_regular

MANIFEST = "manifest.json"
FORMAT = 2


def write_manifest(folder: Path) -> None:
    """Write the manifest of a folder: size in bytes and SHA-256 of the files that are in it now."""
    files = {path.name: _entry(path) for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(_text(files))


def check_manifest(folder: Path) -> list[str]:
    """Compare the files of a folder with its manifest, byte by byte; nothing is loaded or run.

    Returns:
        Names of the files, sorted, without the manifest's own.

    Raises:
        BundleError: a file is missing, strange or changed; the text names it.
    """
    try:
        written = read_regular(folder / MANIFEST)
        files = json.loads(written)["files"]
        expected = _text(dict(files)).encode()
    except FileNotFoundError:
        raise BundleError(
            f"bundle {str(folder)!r} has no {MANIFEST}, by which it could be verified"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"bundle {str(folder)!r}: {MANIFEST} cannot be read: {error}") from None
    if written != expected:  # it has one spelling, so that a changed byte shows here too
        raise BundleError(
            f"bundle {str(folder)!r}: {MANIFEST} has been changed, or has a format other than "
            f"{FORMAT}"
        )
    present = {path.name for path in folder.iterdir()} - {MANIFEST}
    if absent := sorted(set(files) - present):
        raise BundleError(f"bundle {str(folder)!r}: {absent[0]} is missing")
    if strange := sorted(present - set(files)):
        raise BundleError(
            f"bundle {str(folder)!r}: {strange[0]} is not in {MANIFEST}; delete it, it was not "
            "exported"
        )
    for name, entry in files.items():
        path = folder / name
        if path.is_symlink() or not path.is_file() or _entry(path) != entry:
            raise BundleError(f"bundle {str(folder)!r}: {name} is not what was exported")
    return sorted(files)


def _text(files: dict[str, dict[str, str | int]]) -> str:
    return json.dumps({"format": FORMAT, "files": files}, indent=2, sort_keys=True) + "\n"


def _entry(path: Path) -> dict[str, str | int]:
    with path.open("rb") as file:
        return {
            "bytes": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }
