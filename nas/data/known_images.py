"""What was found in image files, kept on this machine's disk until a file changes."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nas.data.image_io import BrokenImage, ImageFacts, inspect_images, largest_pixels
from nas.utils.disk_cache import DiskCache

Size = tuple[int, int]
SETTLED_NS = 2 * 10**9  # a file that changed so lately may change again within its clock's tick


def inspect_folder(
    folder: Path, files: Sequence[tuple[str, Size | None]]
) -> Iterator[ImageFacts | BrokenImage]:
    """Inspect the images of a folder; those that were inspected before are not decoded again.

    A file counts as unchanged while its size, inode and both times are what they were. A program
    can set back the time of a file's content, but not the time at which it did so. A file that
    stands under several names (hard links) is decoded once.

    Args:
        folder: of the images.
        files: name and expected (width, height) of each, as `inspect_image` takes them.

    Yields:
        For each file, in order, what it holds or why it cannot be decoded.
    """
    cache, key = DiskCache("images", ("nas.data",)), [str(folder.resolve()), largest_pixels()]
    known = cache.get(key) or {}
    states = [state_of(os.path.join(folder, name), expected) for name, expected in files]
    new = [
        state is None or known.get(name, [None])[0] != state
        for (name, _), state in zip(files, states, strict=True)
    ]
    changed = [*itertools.compress(zip(files, states, strict=True), new)]
    fresh = _inspected_once(folder, changed)
    kept = dict(known)
    for (name, _), state, is_new in zip(files, states, new, strict=True):
        facts = next(fresh) if is_new else ImageFacts(*known[name][1])
        if is_new and state and isinstance(facts, ImageFacts):
            kept[name] = [state, [*vars(facts).values()]]
        yield facts
    if kept != known:
        cache.put(key, kept)


def _inspected_once(
    folder: Path, files: Sequence[tuple[tuple[str, Size | None], list[Any] | None]]
) -> Iterator[ImageFacts | BrokenImage]:
    """Inspect files in order, those that are the same but for their names once."""
    keys = [f"{Path(name).suffix} {state}" if state else name for (name, _), state in files]
    unique: dict[str, tuple[Path, Size | None]] = {}
    for key, ((name, size), _) in zip(keys, files, strict=True):
        unique.setdefault(key, (folder / name, size))
    decoded = zip(unique, inspect_images([*unique.values()]), strict=True)
    found: dict[str, ImageFacts | BrokenImage] = {}
    for key in keys:
        while key not in found:
            found.update([next(decoded)])
        yield found[key]


def state_of(path: str | Path, expected: Size | None = None) -> list[Any] | None:
    """Give everything that changes with a file, or with what is expected of it.

    Returns:
        Plain JSON; None for a file that is not there, or changed so lately that it has to be
        inspected in any case.
    """
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return None
    if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) < SETTLED_NS:
        return None
    size = list(expected) if expected else None
    return [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns, size]
