"""A data set of any form that is read, written in plain COCO form."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from nas.data.coco import CocoSplit
from nas.errors import OutputError
from nas.utils.files import os_errors_as_output_error
from nas.utils.folders import atomic_folder
from nas.utils.progress import CountProgress


def check_new_folder(folder: Path) -> None:
    """Refuse a folder that holds something already.

    Raises:
        OutputError: it is a file, or not empty.
    """
    taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if taken or not folder.name:
        raise OutputError(f"{str(folder)!r} is there already; name a new folder")


def write_coco(
    out: Path, splits: Sequence[tuple[str, CocoSplit]], progress: CountProgress | None = None
) -> None:
    """Write splits as `NAME/` with the image files and `instances_NAME.json`.

    Image files are copied as they are: a photograph that is turned by its EXIF data still is, and
    its size is that of the upright image.

    Args:
        out: a new folder, which is there only once it is whole.
        splits: name and content of each.
        progress: told of every image.

    Raises:
        OutputError: the folder is there already, or cannot be written.
    """
    check_new_folder(out)
    with os_errors_as_output_error(out), atomic_folder(out) as partial:
        for name, split in splits:
            for done, image in enumerate(split.images, start=1):
                target = partial / name / image.file_name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(split.folder / image.file_name, target)
                if progress:
                    progress(name, done, len(split.images))
            write_annotations(partial, name, split)


def write_annotations(folder: Path, name: str, split: CocoSplit) -> None:
    """Write the annotation file of a split in plain COCO form."""
    (folder / f"instances_{name}.json").write_text(json.dumps(split.to_coco()))
