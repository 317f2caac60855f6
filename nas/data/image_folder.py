"""Images for classification on the way in, in train/CLASS and val/CLASS: found as torchvision's
`ImageFolder` finds them, each looked into. Folders below a class belong to it.
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
    """The images of a split: files below its folder and their classes, counted from 0."""

    folder: Path
    files: tuple[str, ...]
    labels: tuple[int, ...]

    def share(self, rank: int, size: int) -> LabelledImages:
        """Every `size`-th image, from the one at `rank`."""
        return LabelledImages(self.folder, self.files[rank::size], self.labels[rank::size])


def find_classes(root: Path) -> tuple[str, ...]:
    """The names of the classes, sorted: folders that both splits have. Hidden folders are none.

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
    found = {split: _folders(root, split) for split in SPLITS}
    for split, other in (SPLITS, SPLITS[::-1]):
        if not found[split]:
            raise DataError(
                f"split {split!r} of {str(root)!r} has no class: images must be in {split}/CLASS/"
            )
        if alone := sorted(found[split] - found[other]):
            raise DataError(
                f"splits of {str(root)!r} must have the same classes; only in {split!r}: "
                f"{_listing(alone)}"
            )
    if len(found["train"]) < 2:
        raise DataError(
            f"{str(root)!r} must have at least 2 classes; got {', '.join(found['train'])}"
        )
    return tuple(sorted(found["train"]))


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
    """List the images of a split.

    Raises:
        DataError: a class has none.
    """
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

    folder = root / split
    found = make_dataset(
        folder,
        {name: label for label, name in enumerate(classes)},
        extensions=IMG_EXTENSIONS,
        allow_empty=True,
    )
    labels = tuple(label for _, label in found)
    if empty := [classes[label] for label in sorted(set(range(len(classes))) - set(labels))]:
        raise DataError(
            f"each class of {str(folder)!r} must have an image ({', '.join(IMG_EXTENSIONS)}); "
            f"not: {_listing(empty)}"
        )
    return LabelledImages(
        folder, tuple(str(Path(path).relative_to(folder)) for path, _ in found), labels
    )


def check_images(images: LabelledImages, progress: CountProgress | None = None) -> None:
    """Decode every image of a split.

    Raises:
        DataError: some cannot be; the text names them.
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
    """Sixteen hexadecimal digits over the classes and the name, class and size of every image
    file.
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
