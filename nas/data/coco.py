"""Images, boxes and categories of a split in COCO's terms, once they have been checked."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nas.data.box_table import Box, BoxTable
from nas.data.deep_images import DEEPEST


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
class CocoSplit:
    """The checked images and boxes of one split.

    Args:
        folder: where the image files are.
        images: the images that can be used.
        boxes: the objects that can be used, of these images; any sequence of `Box` becomes a table.
        categories: id and name of every category, by ascending id.
        white_level: value that becomes 255 in images of more than 8 bits.
        content: hexadecimal digest of the bytes of all image files that were checked; empty where
            they were not.
    """

    folder: Path
    images: tuple[ImageRecord, ...]
    boxes: BoxTable
    categories: tuple[tuple[int, str], ...]
    white_level: int = DEEPEST
    content: str = ""

    def __post_init__(self) -> None:
        boxes: Sequence[Box] = self.boxes
        if not isinstance(boxes, BoxTable):
            object.__setattr__(self, "boxes", BoxTable.of(boxes))

    @property
    def labels(self) -> dict[int, int]:
        """The label of each category id: 1 for the first category, then counting up."""
        return {
            category_id: label for label, (category_id, _) in enumerate(self.categories, start=1)
        }

    def to_coco(self, *, boxes: bool = True) -> dict[str, Any]:
        """Write the split in COCO's instances form, plain JSON: the ground truth of evaluation.

        Args:
            boxes: with the annotations; else their list is empty.
        """
        depth = {} if self.white_level == DEEPEST else {"white_level": self.white_level}
        return {
            **depth,
            "images": [vars(image) for image in self.images],
            "annotations": [box.to_coco() for box in self.boxes] if boxes else [],
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
            BoxTable.of(Box(**{**box, "bbox": tuple(box["bbox"])}) for box in coco["annotations"]),
            tuple((category["id"], category["name"]) for category in coco["categories"]),
            coco.get("white_level", DEEPEST),
        )

    @property
    def has_masks(self) -> bool:
        """Whether any object has a mask."""
        return bool(self.boxes.masks)

    def without_masks(self) -> CocoSplit:
        """Copy the split with boxes alone, without segmentations."""
        return replace(self, boxes=self.boxes.without_masks())

    def subset(self, fraction: float) -> CocoSplit:
        """Draw a share of the images, with their boxes; equal for every caller.

        Args:
            fraction: of the images, above 0, at most 1; at least one image is drawn.
        """
        count = max(1, round(fraction * len(self.images)))
        chosen = sorted(random.Random(0).sample(range(len(self.images)), count))
        images = tuple(self.images[index] for index in chosen)
        return replace(
            self, images=images, boxes=self.boxes.of_images(image.id for image in images)
        )
