"""Where a data folder in COCO's form has the images and the annotation file of a split.

train/  val/  instances_train.json  instances_val.json
train2017/  val2017/  annotations/instances_train2017.json        COCO's own
train/_annotations.coco.json  valid/  test/                       Roboflow's
images/train/  annotations/instances_train.json                   CVAT's
images/  annotations/train.json                                   one folder for all splits
train/data/  train/labels.json                                    FiftyOne's
images/default/  annotations/instances_default.json               CVAT's without splits
images/  result.json                                              Label Studio's, without splits
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
ONLY = (  # names of a file for all images
    *("instances_default.json", "_annotations.coco.json", "result.json", "annotations.json"),
    *("labels.json", "instances.json", "coco.json", "_annotations.json", "dataset.json"),
)
IMAGES = ("{}", "images/{}", "{}/images", "{}/data", "images", "data", "JPEGImages")
IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"),
    *(".heic", ".heif", ".avif"),
}
LOOKED_INTO = 1000  # entries of a folder, for an image among them


class SplitFile(NamedTuple):
    """The annotation file of a split.

    Args:
        name: the split's name as the data set spells it: `val2017`.
        file: the file.
    """

    name: str
    file: Path


def find_coco(root: Path, split: str) -> SplitFile | None:
    """Find the annotation file of a split in COCO's form, in any of the layouts above; None where
    there is none.

    Args:
        root: folder of the data set.
        split: its name; of `train`, `val` and `test` other spellings are found too.
    """
    for name in _names(split):
        for file in (root / template.format(name, name) for template in ANNOTATIONS):
            if file.is_file():
                return SplitFile(name, file)
    return None


def only_file(root: Path, *, sure: bool) -> Path | None:
    """Find the annotation file of a data set without splits; None where there is none.

    Args:
        root: folder of the data set.
        sure: only one of a name that programs give such a file; else any that is alone.
    """
    files = [*sorted(root.glob("*.json")), *sorted((root / "annotations").glob("*.json"))]
    if sure:
        named = {file.name: file for file in reversed(files)}
        return next((named[name] for name in ONLY if name in named), None)
    return files[0] if len(files) == 1 else None


def _names(split: str) -> Iterator[str]:
    for name, year in itertools.product(SPELLINGS.get(split, (split,)), YEARS):
        yield name + year


def find_image_folder(root: Path, name: str, file: Path) -> Path:
    """Find the images of an annotation file: in the first folder that has some, the file's own
    before folders of all.

    Args:
        root: folder of the data set.
        name: of the split as the data set spells it; empty where it has none.
        file: the annotation file.
    """
    name = name or "default"  # as CVAT calls it
    own = [file.parent] if name in file.parent.parts[-1:] else []
    folders = [root / template.format(name) for template in IMAGES]
    for folder in (*folders[:4], *own, *folders[4:]):
        if has_images(folder):
            return folder
    below = [] if _directly(root) else [each for each in root.iterdir() if has_images(each)]
    for folder in (*(below if len(below) == 1 else []), file.parent, root):
        if has_images(folder):
            return folder
    return next((folder for folder in folders if folder.is_dir()), file.parent)


def has_images(folder: Path) -> bool:
    """Tell whether there is an image in a folder, or in one below it; only its first thousand
    entries are looked at.
    """
    if not folder.is_dir():
        return False
    entries = itertools.islice(folder.rglob("*"), LOOKED_INTO)
    return any(entry.suffix.lower() in IMAGE_SUFFIXES for entry in entries)


def _directly(folder: Path) -> bool:
    entries = itertools.islice(folder.iterdir(), LOOKED_INTO)
    return any(entry.suffix.lower() in IMAGE_SUFFIXES for entry in entries)
