"""Splits that were checked before, as they were found, as long as none of their files has changed.

For a large data set the check takes a minute, and this a second.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from zipfile import BadZipFile

from nas.data.coco import CocoSplit
from nas.data.findings import DataIssue
from nas.data.image_io import largest_pixels
from nas.data.image_validation import UNUSABLE
from nas.data.known_images import state_of
from nas.data.split_index import read_split, write_split
from nas.data.split_source import SplitSource
from nas.errors import OutputError
from nas.utils.disk_cache import code_fingerprint
from nas.utils.files import atomic_write
from nas.utils.paths import cache_folder
from search_spaces.regular_files import open_regular


@dataclass(frozen=True)
class Check:
    """What a check of a split found.

    Args:
        split: the images and boxes that can be used.
        problems: every issue, in the order they were met.
        brightest: largest value of its images of more than 8 bits; 0 without any.
        digests: hexadecimal digest of the bytes of each image file, by its name.
    """

    split: CocoSplit
    problems: tuple[DataIssue, ...]
    brightest: int
    digests: dict[str, str]


def known_check(source: SplitSource, *, masks: bool = True) -> Check | None:
    """Give what is known of a split; None where nothing is, or a file has changed since.

    Args:
        source: of the split.
        masks: with the masks of its boxes.
    """
    try:
        with open_regular(_path(source)) as file:
            split, more = read_split(file, masks=masks)
    except (OSError, ValueError, KeyError, RuntimeError, BadZipFile):
        return None
    if more["state"] != _state(source, (image.file_name for image in split.images)):
        return None
    if masks and not more["masks"]:
        return None
    problems = tuple(DataIssue(**issue) for issue in more["problems"])
    return Check(split, problems, more["brightest"], more["digests"])


def keep_check(source: SplitSource, found: Check, *, masks: bool = True) -> None:
    """Keep what a check found for `known_check`, if every image could be read, and the file system
    takes it.

    Args:
        source: of the split.
        found: what was found.
        masks: it has the masks of the boxes.
    """
    state = _state(source, found.digests)
    if state is None or any(issue.kind in UNUSABLE for issue in found.problems):
        return  # an image that is missing or broken may be sound the next time
    more = {
        "state": state,
        "masks": masks,
        "problems": [asdict(issue) for issue in found.problems],
        "brightest": found.brightest,
        "digests": found.digests,
    }
    path = _path(source)
    with suppress(OSError, OutputError):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, lambda file: write_split(file, found.split, more))


def _path(source: SplitSource) -> Path:
    places = [str(source.annotations.resolve()), str(source.images.resolve()), source.part]
    name = hashlib.sha256(json.dumps(places).encode()).hexdigest()[:32]
    return cache_folder() / "checks" / f"{name}.npz"


def _state(source: SplitSource, names: Iterable[str]) -> str | None:
    """Digest of the state of all files and of our own code; None where one of them is not settled,
    or what is read are more files than these.
    """
    if source.form != "COCO":
        return None
    folder = str(source.images)
    files = (os.path.join(folder, name) for name in names)
    states = [state_of(source.annotations), *map(state_of, files)]
    if None in states:
        return None
    written = json.dumps([code_fingerprint(("nas.data",)), largest_pixels(), states])
    return hashlib.sha256(written.encode()).hexdigest()
