"""Splits of a data set from sizes and boxes alone."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from nas.data.coco import CocoSplit

Numbers = tuple[float, float, float, float]


class Object(NamedTuple):
    """A box of an image: x, y, width, height in pixels."""

    image_id: int
    bbox: Numbers
    category_id: int = 1
    iscrowd: int = 0


def split_of(
    folder: Path, sizes: list[tuple[int, int]], objects: list[Object], categories: str = "x"
) -> CocoSplit:
    """Make a split of images 1, 2, ... (`1.png`) with widths and heights, and of categories 1, 2,
    ... whose names are letters.
    """
    return CocoSplit.from_coco(
        folder,
        {
            "images": [
                {"id": n, "file_name": f"{n}.png", "width": width, "height": height}
                for n, (width, height) in enumerate(sizes, start=1)
            ],
            "annotations": [
                {"id": n, "area": 1, **each._asdict()} for n, each in enumerate(objects, start=1)
            ],
            "categories": [{"id": n, "name": x} for n, x in enumerate(categories, start=1)],
        },
    )
