"""COCO-format data on the way in: found, checked, repaired where that loses nothing, named where it
cannot be.

Two spellings of a folder are read, ours and COCO's own:

    train/  val/  instances_train.json  instances_val.json
    train2017/  val2017/  annotations/instances_train2017.json  annotations/instances_val2017.json
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nas.data.segmentation import Segmentation
from nas.errors import DataError

ROUNDING = 0.5  # pixels; a box that is less outside was rounded by whoever wrote the file
NO_ID = -(2**63)  # stands for whatever is no whole number


@dataclass(frozen=True)
class ImageRecord:
    """One image: its COCO id, its file below the split's folder, its size in pixels as used."""

    id: int
    file_name: str
    width: int
    height: int


@dataclass(frozen=True)
class Box:
    """One annotation: `bbox` is x, y, width, height in pixels, inside its image; `area` in square
    pixels, of the object; `segmentation` its mask in COCO's form, where there is one (see
    `nas.data.segmentation`); nobody changes it.
    """

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: int
    segmentation: Segmentation | None = None

    def to_coco(self) -> dict[str, Any]:
        """COCO's form of an annotation."""
        entry = {**vars(self), "bbox": list(self.bbox)}
        if self.segmentation is None:
            del entry["segmentation"]
        return entry


@dataclass(frozen=True)
class CocoSplit:
    """Checked images and boxes of one split. Categories are ordered by id; the label of the first
    is 1.
    """

    folder: Path
    images: tuple[ImageRecord, ...]
    boxes: tuple[Box, ...]
    categories: tuple[tuple[int, str], ...]

    @property
    def labels(self) -> dict[int, int]:
        """Category id to label, 1 to the number of categories."""
        return {
            category_id: label for label, (category_id, _) in enumerate(self.categories, start=1)
        }

    def to_coco(self) -> dict[str, Any]:
        """COCO's instances form: the ground truth of evaluation."""
        return {
            "images": [vars(image) for image in self.images],
            "annotations": [box.to_coco() for box in self.boxes],
            "categories": [
                {"id": category_id, "name": name} for category_id, name in self.categories
            ],
        }

    @classmethod
    def from_coco(cls, folder: Path, coco: dict[str, Any]) -> CocoSplit:
        """The inverse of `to_coco`, for what has been checked already."""
        return cls(
            folder,
            tuple(ImageRecord(**image) for image in coco["images"]),
            tuple(Box(**{**box, "bbox": tuple(box["bbox"])}) for box in coco["annotations"]),
            tuple((category["id"], category["name"]) for category in coco["categories"]),
        )

    @property
    def has_masks(self) -> bool:
        """Whether any object has a mask."""
        return any(box.segmentation is not None for box in self.boxes)

    def without_masks(self) -> CocoSplit:
        """The same boxes alone."""
        return replace(self, boxes=tuple(replace(box, segmentation=None) for box in self.boxes))

    def subset(self, fraction: float) -> CocoSplit:
        """A share of the images, at least one, the same for every caller; with their boxes."""
        count = max(1, round(fraction * len(self.images)))
        chosen = sorted(random.Random(0).sample(range(len(self.images)), count))
        images = tuple(self.images[index] for index in chosen)
        ids = {image.id for image in images}
        return replace(
            self, images=images, boxes=tuple(box for box in self.boxes if box.image_id in ids)
        )


def fingerprint(splits: Iterable[CocoSplit]) -> str:
    """Sixteen hexadecimal digits over every box, every mask that was kept, every category and the
    name and size of every image file.
    """
    digest = hashlib.sha256()
    for split in splits:
        digest.update(json.dumps(split.to_coco(), sort_keys=True).encode())
        digest.update(
            str(
                [(split.folder / image.file_name).stat().st_size for image in split.images]
            ).encode()
        )
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class DataIssue:
    """One finding. `repaired` says that image and box are used; else the image or the box cannot
    be.
    """

    kind: str
    repaired: bool
    file: str
    annotation_id: int | None = None
    detail: str = ""

    def __str__(self) -> str:
        where = (
            self.file
            if self.annotation_id is None
            else f"{self.file}, annotation {self.annotation_id}"
        )
        return f"{where}: {self.kind}" + (f" ({self.detail})" if self.detail else "")


@dataclass
class Findings:
    """Problems in the order they were met."""

    problems: list[DataIssue] = field(default_factory=list)

    def repaired(
        self, kind: str, file: str, annotation_id: int | None = None, detail: str = ""
    ) -> None:
        self.problems.append(DataIssue(kind, True, file, annotation_id, detail))

    def lost(
        self, kind: str, file: str, annotation_id: int | None = None, detail: str = ""
    ) -> None:
        self.problems.append(DataIssue(kind, False, file, annotation_id, detail))


def find_split(root: Path, split: str) -> tuple[Path, Path]:
    """The image folder and the annotation file of a split, in either spelling.

    Raises:
        DataError: no such folder, or neither spelling in it.
    """
    if not root.is_dir():
        raise DataError(
            f"data set folder {str(root)!r} does not exist"
            if not root.exists()
            else f"{str(root)!r} is no folder"
        )
    tried = []
    for name in (split, f"{split}2017"):
        for file in (
            root / f"instances_{name}.json",
            root / "annotations" / f"instances_{name}.json",
        ):
            folder = root / name
            if file.is_file() and folder.is_dir():
                return folder, file
            tried.append(f"{file.relative_to(root)} with {name}/")
    raise DataError(f"no split {split!r} in {str(root)!r}; looked for {', '.join(tried)}")


def read_annotations(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The lists `images`, `annotations` and `categories` of an annotation file.

    Raises:
        DataError: unreadable, not JSON, or without one of the lists.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"annotation file {str(path)!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"annotation file {str(path)!r} is not text") from None
    except json.JSONDecodeError as error:
        raise DataError(f"annotation file {str(path)!r} is not JSON: {error}") from None
    for key in ("images", "annotations", "categories"):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise DataError(
                f"annotation file {str(path)!r} must have a list {key!r} of objects (COCO "
                "instances form)"
            )
    return content


def read_categories(entries: list[dict[str, Any]], source: str) -> tuple[tuple[int, str], ...]:
    """Id and name of every category, by ascending id.

    Raises:
        DataError: none at all, no whole number as id, or one id with two names.
    """
    names: dict[int, str] = {}
    for entry in entries:
        category_id, name = entry.get("id"), str(entry.get("name", entry.get("id")))
        if type(category_id) is not int:
            raise DataError(
                f"{source}: the id of a category must be a whole number; got {category_id!r}"
            )
        if names.setdefault(category_id, name) != name:
            raise DataError(
                f"{source}: category {category_id} has two names, {names[category_id]!r} and "
                f"{name!r}"
            )
    if not names:
        raise DataError(f"{source}: the list of categories is empty")
    return tuple(sorted(names.items()))


def as_id(value: object) -> int:
    """The value where it can be an id."""
    return value if type(value) is int else NO_ID
