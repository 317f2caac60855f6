"""Names of image files as annotation files have them, found on this disk."""

from __future__ import annotations

import itertools
import os
import unicodedata
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

LONGEST = 10_000  # characters; no disk has a longer path, however it is encoded


class ImageFiles:
    """The image files of a folder, found by names that were written elsewhere.

    A name is taken as it is; else with backslashes as slashes and without percent-encoding; else
    without its first folders (a path of another machine, a folder of the split), in another Unicode
    form or case; else as the only file of its name in any folder below. Nothing outside the folder
    is found.

    Args:
        folder: of the images, and of folders with images.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, name: str) -> str | None:
        """Find a file, and give its path below the folder as the disk has it, with slashes; None
        where there is none, or several are equally good.
        """
        if len(name) > LONGEST:
            return None
        for spelled in dict.fromkeys((name, _plain(name), _plain(unquote(name)))):
            parts = PurePosixPath(spelled).parts
            inside = parts and parts[0] != "/" and ".." not in parts
            if inside and _is_file(self.folder / spelled):
                return PurePosixPath(spelled).as_posix()
        wanted = [part for part in PurePosixPath(_plain(unquote(name))).parts if part not in "/.."]
        for start in range(len(wanted)):
            found = self._by_key.get(_key("/".join(wanted[start:])))
            if found:
                return found[0] if len(found) == 1 else None
        alike = self._by_name.get(_key(wanted[-1]), []) if wanted else []
        return alike[0] if len(alike) == 1 else None

    @cached_property
    def _by_key(self) -> dict[str, list[str]]:
        """Paths by what two spellings of one have in common; listed once, where that is needed."""
        found: dict[str, list[str]] = {}
        for base, _, files in os.walk(self.folder):
            for file in files:
                path = Path(base, file).relative_to(self.folder).as_posix()
                found.setdefault(_key(path), []).append(path)
        return found

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        """The same by the name alone, whatever its folder."""
        found: dict[str, list[str]] = {}
        for path in itertools.chain.from_iterable(self._by_key.values()):
            found.setdefault(_key(PurePosixPath(path).name), []).append(path)
        return found


def stated_name(entry: dict[str, Any]) -> str | None:
    """Name of the file of an entry of `images`: its `file_name`, or the path of its `coco_url`
    (LVIS); None where it has neither.
    """
    name = entry.get("file_name")
    if isinstance(name, str) and name:
        return name
    url = entry.get("coco_url")
    try:
        return urlsplit(url).path.lstrip("/") or None if isinstance(url, str) else None
    except ValueError:
        return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for the disk
        return False


def _plain(name: str) -> str:
    return name.replace("\\", "/")


def _key(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()
