"""Image files that a user names: files, folders, patterns and URLs."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path

from nas.data.split_files import IMAGE_SUFFIXES
from nas.errors import DataError
from nas.utils.paths import expanded, is_remote, localize

PATTERN = set("*?[")


def image_paths(words: Iterable[str]) -> list[Path]:
    """Find the image files that some words name, each once, in the order of the words.

    Args:
        words: files, folders with images in them or below, patterns (`scans/*.png`, `**` for
            folders of any depth), URLs, which are copied to this machine.

    Raises:
        DataError: a word that names nothing, or a folder without images.
    """
    found = [path for word in words for path in _named(word)]
    return [*dict.fromkeys(found)]


def _named(word: str) -> Iterator[Path]:
    path = localize(word) if is_remote(word) else expanded(word)
    if path.is_dir():
        images = sorted(each for each in path.rglob("*") if each.suffix.lower() in IMAGE_SUFFIXES)
        if not images:
            raise DataError(f"folder {word!r} has no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
        yield from images
    elif path.is_file():
        yield path
    elif matches := _matches(str(path)):
        yield from matches
    else:
        raise DataError(f"there is no image, folder or pattern of images {word!r}")


def _matches(pattern: str) -> list[Path]:
    if not PATTERN & set(pattern):
        return []
    return [
        Path(each) for each in sorted(glob.glob(pattern, recursive=True)) if Path(each).is_file()
    ]
