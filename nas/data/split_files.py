"""Where a data folder in COCO's form has the images and the annotation file of a split.

train/  val/  instances_train.json  instances_val.json
train2017/  val2017/  annotations/instances_train2017.json        COCO's own
train/_annotations.coco.json  valid/  test/                       Roboflow's
images/train/  annotations/instances_train.json                   CVAT's
images/  annotations/train.json                                   one folder for all splits
train/data/  train/labels.json                                    FiftyOne's
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from nas.errors import DataError

SPELLINGS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
YEARS = ("", "2017", "2014")
ANNOTATIONS = (
    "instances_{}.json",
    "annotations/instances_{}.json",
    "{}/_annotations.coco.json",
    "annotations/{}.json",
    "{}.json",
    "{}/annotations.json",
    "{}/labels.json",
    "{}/instances_{}.json",
    "annotations/lvis_v1_{}.json",
    "lvis_v1_{}.json",
)
IMAGES = ("{}", "images/{}", "{}/images", "{}/data", "images", "data", "JPEGImages")
IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"),
    *(".heic", ".heif", ".avif"),
}
LOOKED_INTO = 1000  # entries of a folder, for an image among them


class SplitFiles(NamedTuple):
    """Where a split is.

    Args:
        images: folder that the names of image files are looked for in.
        annotations: annotation file.
    """

    images: Path
    annotations: Path


def find_split(root: Path, split: str) -> SplitFiles:
    """Find the image folder and the annotation file of a split, in any of the layouts above.

    Args:
        root: folder of the data set.
        split: `train`, `val`, `test` or a name of the user's; of the first three other spellings
            are found too (`valid`, `val2017`).

    Raises:
        DataError: no such folder, or no annotation file of the split in it.
    """
    if not root.is_dir():
        raise DataError(
            f"data set folder {str(root)!r} does not exist"
            if not root.exists()
            else f"{str(root)!r} is no folder"
        )
    for name in _names(split):
        for file in (root / template.format(name, name) for template in ANNOTATIONS):
            if file.is_file():
                return SplitFiles(_image_folder(root, name, file), file)
    there = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())
    raise DataError(
        f"no split {split!r} in {str(root)!r}; looked for instances_{split}.json with {split}/, "
        f"for COCO's, Roboflow's and CVAT's layouts; there is {', '.join(there[:8]) or 'nothing'}"
    )


def _names(split: str) -> Iterator[str]:
    for name, year in itertools.product(SPELLINGS.get(split, (split,)), YEARS):
        yield name + year


def _image_folder(root: Path, name: str, file: Path) -> Path:
    """The first folder that has images, and the annotation file's own before folders of all."""
    own = [file.parent] if name in file.parent.parts[-1:] else []
    folders = [root / template.format(name) for template in IMAGES]
    for folder in (*folders[:4], *own, *folders[4:], file.parent, root):
        if folder.is_dir() and _has_images(folder):
            return folder
    return next((folder for folder in folders if folder.is_dir()), file.parent)


def _has_images(folder: Path) -> bool:
    """Whether there is an image in the folder, or in one below it."""
    entries = itertools.islice(folder.rglob("*"), LOOKED_INTO)
    return any(entry.suffix.lower() in IMAGE_SUFFIXES for entry in entries)
