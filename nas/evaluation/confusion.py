"""Which class a detector takes objects for, and what it misses and makes up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask

from nas.evaluation.thresholds import check_iou, check_score

BACKGROUND = "background"
Rows = Sequence[Mapping[str, Any]]
Match = tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]


@dataclass(frozen=True)
class ConfusionMatrix:
    """Objects by what they are and what they are found as.

    Args:
        classes: names, in the order of the data set's labels, and `background` as the last.
        counts: [K + 1, K + 1]: in row i and column j objects of class i that are found as class j;
            in the last column those that are missed, in the last row detections of nothing.
        iou: from which a detection may be of an object.
        score: from which a detection counts.
    """

    classes: tuple[str, ...]
    counts: NDArray[np.int64]
    iou: float
    score: float

    def confused(self) -> list[tuple[str, str, int]]:
        """What is wrong, the most frequent first: class, class that it is found as, how often."""
        off = self.counts - np.diag(np.diag(self.counts))
        order = np.argsort(-off, axis=None, kind="stable")
        cells = [divmod(int(cell), len(self.classes)) for cell in order[: np.count_nonzero(off)]]
        return [(self.classes[i], self.classes[j], int(off[i, j])) for i, j in cells]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "iou": self.iou,
            "score": self.score,
            "classes": list(self.classes),
            "counts": self.counts.tolist(),
        }


def confusion_matrix(
    truth: Mapping[str, Rows], detections: Rows, iou: float = 0.5, score: float = 0.3
) -> ConfusionMatrix:
    """Count what objects are found as. In each image the surest detection chooses first, whatever
    its class: of the objects that are left it takes the one that it overlaps most, if by `iou` or
    more.

    hotcoco's matrix counts detections inside crowds as wrong; here, as in COCO's evaluation, they
    count as nothing.

    Args:
        truth: COCO instances; boxes are compared.
        detections: COCO results.
        iou: from which a detection may be of an object, above 0.1, at most 1.
        score: from which a detection counts, 0 to 1.

    Raises:
        SpecError: a threshold is out of its range.
    """
    check_iou(iou)
    check_score(score)
    categories = truth["categories"]
    place = {category["id"]: index for index, category in enumerate(categories)}
    counts = np.zeros((len(place) + 1, len(place) + 1), dtype=np.int64)
    objects = _by_image(truth["annotations"])
    found = _by_image(each for each in detections if each["score"] >= score)
    for image in {*objects, *found}:
        for pair in _matches(objects[image], found[image], iou):
            counts[tuple(place[each["category_id"]] if each else -1 for each in pair)] += 1
    names = tuple(str(category.get("name", category["id"])) for category in categories)
    return ConfusionMatrix((*names, BACKGROUND), counts, iou, score)


def _by_image(rows: Iterable[Mapping[str, Any]]) -> defaultdict[Any, list[Mapping[str, Any]]]:
    by_image = defaultdict(list)
    for row in rows:
        by_image[row["image_id"]].append(row)
    return by_image


def _matches(objects: Rows, found: Rows, iou: float) -> Iterator[Match]:
    """Objects of one image with their detections; None beside what has none."""
    found = sorted(found, key=lambda each: -each["score"])
    crowd = np.array([bool(each.get("iscrowd")) for each in objects], dtype=bool)
    overlaps, free = _overlaps(found, objects, crowd), ~crowd
    for detection, overlap in zip(found, overlaps, strict=True):
        best = int(np.where(free, overlap, -1).argmax()) if free.any() else None
        if best is not None and overlap[best] >= iou:
            free[best] = False
            yield objects[best], detection
        elif not (overlap[crowd] >= iou).any():
            yield None, detection
    yield from ((objects[index], None) for index in np.flatnonzero(free).tolist())


def _overlaps(found: Rows, objects: Rows, crowd: NDArray[np.bool_]) -> NDArray[np.float64]:
    """IoU [D, N] of boxes; with a crowd the share of the detection inside it."""
    if not found or not objects:
        return np.zeros((len(found), len(objects)))
    boxes = [
        np.array([each["bbox"] for each in rows], dtype=np.float64) for rows in (found, objects)
    ]
    overlaps: NDArray[np.float64] = mask.iou(*boxes, crowd.astype(np.uint8))
    return overlaps
