"""The fingerprint of a data set: the figures that rules decide by."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nas.data.coco import CocoSplit, ImageRecord
from nas.data.image_files import opened_image

PERCENTILES = (5, 25, 50, 75, 95)
FEW = 10  # objects of a class, of fewer the median says little
OPENED = 32  # images whose headers are read for their channels
GRAY_MODES = {"1", "L", "LA", "I", "F", "I;16"}  # of Pillow


@dataclass(frozen=True)
class Fingerprint:
    """A training split in figures. Percentiles are of the 5th, 25th, 50th, 75th and 95th.

    Args:
        images: how many.
        boxes: objects of them, crowds left out.
        short_sides: percentiles of the images' short sides, pixels.
        long_sides: percentiles of their long sides, pixels.
        gray: share of the images, of those looked into, that have one channel.
        object_sides: percentiles of the objects' sides (root of width times height), pixels of the
            image as it is on disk; empty without objects.
        object_shares: percentiles of the same, divided by the short side of the object's image.
        small_share: the same of a small object: the 5th percentile, or the median of the class
            whose objects are smallest, whichever is less; None without objects.
        aspect_ratios: percentiles of height over width of the objects.
        objects_per_image: percentiles of the number of objects of an image.
        most_objects: of any image.
        class_boxes: number of objects of each class, by its name.
        class_images: number of images that have each class, by its name.
    """

    images: int
    boxes: int
    short_sides: tuple[float, ...]
    long_sides: tuple[float, ...]
    gray: float
    object_sides: tuple[float, ...]
    object_shares: tuple[float, ...]
    small_share: float | None
    aspect_ratios: tuple[float, ...]
    objects_per_image: tuple[float, ...]
    most_objects: int
    class_boxes: dict[str, int]
    class_images: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }


def fingerprint_of(split: CocoSplit) -> Fingerprint:
    """Take the fingerprint of a checked training split; of the images some headers are read."""
    boxes = split.boxes.objects
    sides, kinds = boxes.bboxes[:, 2:], boxes.category_ids
    roots = np.sqrt(sides.prod(axis=1))
    shorts = boxes.by_image({image.id: _short(image) for image in split.images})
    rows = boxes.by_image({image.id: row for row, image in enumerate(split.images)})
    per_image = np.bincount(rows, minlength=len(split.images))
    classes, pairs = _by_class(kinds, rows)
    return Fingerprint(
        images=len(split.images),
        boxes=len(boxes),
        short_sides=_percentiles([_short(image) for image in split.images]),
        long_sides=_percentiles([max(image.width, image.height) for image in split.images]),
        gray=_gray_share(split),
        object_sides=_percentiles(roots),
        object_shares=_percentiles(roots / shorts) if len(boxes) else (),
        small_share=_small_share(roots / shorts, kinds),
        aspect_ratios=_percentiles(sides[:, 1] / sides[:, 0]) if len(boxes) else (),
        objects_per_image=_percentiles(per_image),
        most_objects=int(per_image.max(initial=0)),
        class_boxes={name: classes[number] for number, name in split.categories},
        class_images={name: pairs[number] for number, name in split.categories},
    )


def _by_class(kinds: np.ndarray, rows: np.ndarray) -> tuple[Counter[int], Counter[int]]:
    """How many objects each class has, and in how many images."""
    known, of = np.unique(kinds, return_inverse=True)
    both = np.sort(rows * len(known) + of)
    once = both[np.diff(both, prepend=-1) > 0] % max(1, len(known))

    def counted(of: np.ndarray) -> Counter[int]:
        counts = np.bincount(of, minlength=len(known))
        return Counter(dict(zip(known.tolist(), counts.tolist(), strict=True)))

    return counted(of), counted(once)


def _small_share(shares: np.ndarray, of: np.ndarray) -> float | None:
    if not len(shares):
        return None
    medians = [np.median(shares[of == c]) for c in np.unique(of) if (of == c).sum() >= FEW]
    return round(float(min([np.percentile(shares, 5), *medians])), 4)


def _short(image: ImageRecord) -> int:
    return min(image.width, image.height)


def _percentiles(values: Any) -> tuple[float, ...]:
    array = np.asarray(values, dtype=float)
    return (
        tuple(round(float(x), 4) for x in np.percentile(array, PERCENTILES)) if len(array) else ()
    )


def _gray_share(split: CocoSplit) -> float:
    step = max(1, len(split.images) // OPENED)
    modes = []
    for record in itertools.islice(split.images, 0, None, step):
        with opened_image(split.folder / record.file_name) as image:
            modes.append(image.mode)
    return round(sum(mode in GRAY_MODES for mode in modes) / max(1, len(modes)), 4)
