"""Images, boxes and categories of a split in COCO's terms, once they have been checked."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nas.data.deep_images import DEEPEST
from nas.data.segmentation import Segmentation


@dataclass(frozen=True)
class ImageRecord:
    """One image of a split.

    Args:
        id: COCO's number of the image.
        file_name: its file, below the split's folder.
        width, height: its size in pixels as it is used, upright.
    """

    id: int
    file_name: str
    width: int
    height: int


@dataclass(frozen=True)
class Box:
    """One object of an image.

    Args:
        id: COCO's number of the annotation.
        image_id: COCO's number of the image.
        category_id: COCO's number of the category.
        bbox: x, y, width, height in pixels, inside the image.
        area: area of the object in square pixels.
        iscrowd: 1 for a box around many objects, which is not trained on; else 0.
        segmentation: mask in COCO's form (see `nas.data.segmentation`), None where there is none;
            shared by copies of the box, so it must not be changed.
    """

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: int
    segmentation: Segmentation | None = None

    def to_coco(self) -> dict[str, Any]:
        """Write the annotation in COCO's form, plain JSON."""
        entry = {**vars(self), "bbox": list(self.bbox)}
        if self.segmentation is None:
            del entry["segmentation"]
        return entry


@dataclass(frozen=True)
class CocoSplit:
    """The checked images and boxes of one split.

    Args:
        folder: where the image files are.
        images: the images that can be used.
        boxes: the objects that can be used, of these images.
        categories: id and name of every category, by ascending id.
        white_level: value that becomes 255 in images of more than 8 bits.
        content: hexadecimal digest of the bytes of all image files that were checked; empty where
            they were not.
    """

    folder: Path
    images: tuple[ImageRecord, ...]
    boxes: tuple[Box, ...]
    categories: tuple[tuple[int, str], ...]
    white_level: int = DEEPEST
    content: str = ""

    @property
    def labels(self) -> dict[int, int]:
        """The label of each category id: 1 for the first category, then counting up."""
        return {
            category_id: label for label, (category_id, _) in enumerate(self.categories, start=1)
        }

    def to_coco(self) -> dict[str, Any]:
        """Write the split in COCO's instances form, plain JSON: the ground truth of evaluation."""
        depth = {} if self.white_level == DEEPEST else {"white_level": self.white_level}
        return {
            **depth,
            "images": [vars(image) for image in self.images],
            "annotations": [box.to_coco() for box in self.boxes],
            "categories": [
                {"id": category_id, "name": name} for category_id, name in self.categories
            ],
        }

    @classmethod
    def from_coco(cls, folder: Path, coco: dict[str, Any]) -> CocoSplit:
        """Read what `to_coco` wrote; nothing is checked again."""
        return cls(
            folder,
            tuple(ImageRecord(**image) for image in coco["images"]),
            tuple(Box(**{**box, "bbox": tuple(box["bbox"])}) for box in coco["annotations"]),
            tuple((category["id"], category["name"]) for category in coco["categories"]),
            coco.get("white_level", DEEPEST),
        )

    @property
    def has_masks(self) -> bool:
        """Whether any object has a mask."""
        return any(box.segmentation is not None for box in self.boxes)

    def without_masks(self) -> CocoSplit:
        """Copy the split with boxes alone, without segmentations."""
        return replace(self, boxes=tuple(replace(box, segmentation=None) for box in self.boxes))

    def subset(self, fraction: float) -> CocoSplit:
        """Draw a share of the images, with their boxes; equal for every caller.

        Args:
            fraction: of the images, above 0, at most 1; at least one image is drawn.
        """
        count = max(1, round(fraction * len(self.images)))
        chosen = sorted(random.Random(0).sample(range(len(self.images)), count))
        images = tuple(self.images[index] for index in chosen)
        ids = {image.id for image in images}
        return replace(
            self, images=images, boxes=tuple(box for box in self.boxes if box.image_id in ids)
        )


def fingerprint(splits: Iterable[CocoSplit]) -> str:
    """Hash splits: sixteen hexadecimal digits over every box, segmentation and category, and the
    name and size in bytes of every image file, which is all that release 0.1.0 had (see
    `nas.reports.dataset.same_data`); and sixteen over the bytes of the image files.
    """
    splits = list(splits)
    content = hashlib.sha256("".join(split.content for split in splits).encode())
    digest = hashlib.sha256()
    for split in splits:
        digest.update(json.dumps(split.to_coco(), sort_keys=True).encode())
        digest.update(
            str(
                [(split.folder / image.file_name).stat().st_size for image in split.images]
            ).encode()
        )
    return digest.hexdigest()[:16] + content.hexdigest()[:16]
