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


def find_coco(root: Path, split: str) -> SplitFiles | None:
    """Find the image folder and the annotation file of a split in COCO's form, in any of the
    layouts above; None where there is none.

    Args:
        root: folder of the data set.
        split: its name; of `train`, `val` and `test` other spellings are found too.
    """
    for name in _names(split):
        for file in (root / template.format(name, name) for template in ANNOTATIONS):
            if file.is_file():
                return SplitFiles(_image_folder(root, name, file), file)
    return None


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
