"""A split of a data set in any form that is read: COCO's, YOLO's or Pascal VOC's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nas.data.annotation_files import read_annotations
from nas.data.split_files import find_coco
from nas.data.voc import read_voc, xml_files
from nas.data.yolo import find_description, image_files, read_yolo
from nas.errors import DataError

SHOWN = 8  # entries of a folder in an error


@dataclass(frozen=True)
class SplitSource:
    """Where a split is, and how it is read.

    Args:
        form: `COCO`, `YOLO` or `Pascal VOC`.
        images: folder that the names of image files are looked for in.
        annotations: the annotation file, or the file that describes the data set, or a folder.
        read: gives the lists `images`, `annotations` and `categories` of a COCO file, not yet
            checked; raises `DataError`.
    """

    form: str
    images: Path
    annotations: Path
    read: Callable[[], dict[str, list[dict[str, Any]]]]


def find_split(root: Path, split: str) -> SplitSource:
    """Find a split of a data set.

    Args:
        root: folder of the data set.
        split: `train`, `val`, `test` or a name of the user's; of the first three other spellings
            are found too (`valid`, `val2017`).

    Raises:
        DataError: no such folder, or no such split in it.
    """
    if not root.is_dir():
        raise DataError(
            f"data set folder {str(root)!r} does not exist"
            if not root.exists()
            else f"{str(root)!r} is no folder"
        )
    for find in (_coco, _yolo, _voc):
        if found := find(root, split):
            return found
    there = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())
    raise DataError(
        f"no split {split!r} in {str(root)!r}; looked for instances_{split}.json with {split}/, "
        "for the layouts of COCO, Roboflow and CVAT, for YOLO and Pascal VOC; there is "
        f"{', '.join(there[:SHOWN]) or 'nothing'}"
    )


def _coco(root: Path, split: str) -> SplitSource | None:
    found = find_coco(root, split)
    return found and SplitSource("COCO", *found, partial(read_annotations, found.annotations))


def _yolo(root: Path, split: str) -> SplitSource | None:
    description = find_description(root)
    images = image_files(description, split) if description else []
    if not description or not images:
        return None
    outside = [path for path in images if not path.resolve().is_relative_to(root.resolve())]
    if outside:
        raise DataError(f"{description}: images must be in {str(root)!r}; got {outside[0]}")
    inside = [root / path.resolve().relative_to(root.resolve()) for path in images]
    return SplitSource("YOLO", root, description, partial(read_yolo, description, inside, root))


def _voc(root: Path, split: str) -> SplitSource | None:
    files = xml_files(root, split)
    if not files:
        return None
    own = root / "JPEGImages"
    images = own if own.is_dir() else files[0].parent
    return SplitSource(
        "Pascal VOC", images, files[0].parent, partial(read_voc, files, images, root)
    )
