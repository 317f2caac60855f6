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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nas.data.segmentation import Segmentation


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
