"""Image folders for classification, train/CLASS/ and val/CLASS/: listed as torchvision's
`ImageFolder` lists them, and checked. Folders below a class belong to it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nas.data.image_io import BrokenImage, inspect_images
from nas.errors import DataError
from nas.utils.progress import CountProgress

SPLITS = ("train", "val")
SHOWN = 5  # of what an error names


@dataclass(frozen=True)
class LabelledImages:
    """The images of a split and their classes.

    Args:
        folder: folder of the split.
        files: image files, below `folder`.
        labels: class of each file, from 0, in the order of the sorted names of classes.
    """

    folder: Path
    files: tuple[str, ...]
    labels: tuple[int, ...]

    def share(self, rank: int, size: int) -> LabelledImages:
        """Take every `size`-th image, from the one at `rank`."""
        return LabelledImages(self.folder, self.files[rank::size], self.labels[rank::size])


def find_classes(root: Path) -> tuple[str, ...]:
    """List the names of the classes, sorted: folders of both splits that are not hidden.

    Raises:
        DataError: a folder is missing, a split has a class that the other has not, or there are
            fewer than two classes.
    """
    if not root.is_dir():
        raise DataError(
            f"data set folder {str(root)!r} does not exist"
            if not root.exists()
            else f"{str(root)!r} is no folder"
        )
    folders = {split: _folders(root, split) for split in SPLITS}
    for split, other in (SPLITS, SPLITS[::-1]):
        if not folders[split]:
            raise DataError(
                f"split {split!r} of {str(root)!r} has no class: images must be in {split}/CLASS/"
            )
        if alone := sorted(folders[split] - folders[other]):
            raise DataError(
                f"splits of {str(root)!r} must have the same classes; only in {split!r}: "
                f"{_listing(alone)}"
            )
    if len(folders["train"]) < 2:
        raise DataError(
            f"{str(root)!r} must have at least 2 classes; got {', '.join(folders['train'])}"
        )
    return tuple(sorted(folders["train"]))


def _folders(root: Path, split: str) -> set[str]:
    if not (root / split).is_dir():
        raise DataError(
            f"no split {split!r} in {str(root)!r}; looked for {split}/CLASS/ with images"
        )
    return {
        entry.name
        for entry in (root / split).iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    }


def read_split(root: Path, split: str, classes: tuple[str, ...]) -> LabelledImages:
    """List the images of a split, class by class.

    Args:
        root: folder of the data set.
        split: `train` or `val`.
        classes: names of the classes, in the order of the labels.

    Raises:
        DataError: a class has no image.
    """
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

    folder = root / split
    samples = make_dataset(
        folder,
        {name: label for label, name in enumerate(classes)},
        extensions=IMG_EXTENSIONS,
        allow_empty=True,
    )
    labels = tuple(label for _, label in samples)
    if empty := [classes[label] for label in sorted(set(range(len(classes))) - set(labels))]:
        raise DataError(
            f"each class of {str(folder)!r} must have an image ({', '.join(IMG_EXTENSIONS)}); "
            f"not: {_listing(empty)}"
        )
    return LabelledImages(
        folder, tuple(str(Path(path).relative_to(folder)) for path, _ in samples), labels
    )


def check_images(images: LabelledImages, progress: CountProgress | None = None) -> None:
    """Decode every image of a split.

    Args:
        images: the split.
        progress: told of every image.

    Raises:
        DataError: some cannot be decoded; the text names them.
    """
    broken = []
    paths = [(images.folder / file, None) for file in images.files]
    for done, (file, facts) in enumerate(
        zip(images.files, inspect_images(paths), strict=True), start=1
    ):
        if isinstance(facts, BrokenImage):
            broken.append(f"{file} ({facts})")
        if progress:
            progress(images.folder.name, done, len(images.files))
    if broken:
        raise DataError(
            f"{str(images.folder)!r} has images that cannot be read: {_listing(broken)}"
        )


def fingerprint(classes: Iterable[str], splits: Iterable[LabelledImages]) -> str:
    """Hash a data set: sixteen hexadecimal digits over the names of the classes, and the name,
    class and size in bytes of every image file.
    """
    digest = hashlib.sha256(json.dumps(list(classes)).encode())
    for images in splits:
        sizes = [(images.folder / file).stat().st_size for file in images.files]
        digest.update(json.dumps([images.files, images.labels, sizes]).encode())
    return digest.hexdigest()[:16]


def _listing(names: list[str]) -> str:
    return "; ".join(names[:SHOWN]) + (
        f"; and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    )
