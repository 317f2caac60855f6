"""Confusions that can be worked out by hand, and many that a slow version counts."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from nas.errors import SpecError
from nas.evaluation.confusion import confusion_matrix

CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 24, "name": "dog"}]
CAT, DOG = 3, 24
BOX, BESIDE, AWAY = [0, 0, 100, 100], [0, 20, 100, 100], [150, 0, 50, 50]  # IoU 2/3 and 0


def truth(*objects: tuple[int, list[int]], crowds: tuple[int, ...] = ()) -> dict[str, Any]:
    annotations = [
        {"image_id": 1, "category_id": category, "bbox": box, "iscrowd": int(index in crowds)}
        for index, (category, box) in enumerate(objects)
    ]
    return {"images": [{"id": 1}], "categories": CATEGORIES, "annotations": annotations}


def found(category: int, box: list[int], score: float = 0.9, image: int = 1) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def counted(*arguments: Any, **keys: Any) -> list[list[int]]:
    return confusion_matrix(*arguments, **keys).counts.tolist()


def test_right_wrong_missed_and_made_up():
    there = truth((CAT, BOX), (DOG, AWAY))
    assert counted(there, [found(CAT, BOX), found(DOG, AWAY)]) == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert counted(there, [found(DOG, BOX)]) == [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert counted(there, []) == [[0, 0, 1], [0, 0, 1], [0, 0, 0]]
    assert counted(truth(), [found(DOG, BOX)]) == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]
    assert counted(truth(), []) == [[0] * 3] * 3


def test_the_surest_detection_chooses_first_whatever_its_class():
    both = [found(CAT, BOX, 0.6), found(DOG, BOX, 0.8)]
    assert counted(truth((CAT, BOX)), both) == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]
    # It takes what it overlaps most; the other one gets what is left.
    there, least_sure = truth((DOG, BESIDE), (CAT, BOX)), found(CAT, BESIDE, 0.5)
    assert counted(there, [found(DOG, BOX, 0.9), least_sure])[:2] == [[0, 1, 0], [1, 0, 0]]


def test_thresholds():
    there, moved = truth((CAT, BOX)), [found(CAT, BESIDE, 0.3)]
    assert counted(there, moved)[0] == [1, 0, 0]
    assert counted(there, moved, iou=2 / 3)[0] == [1, 0, 0]
    assert counted(there, moved, iou=0.67) == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert counted(there, moved, score=0.31) == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_inside_a_crowd_nothing_is_wrong():
    there = truth((CAT, BOX), (DOG, AWAY), crowds=(0,))
    small = found(CAT, [10, 10, 20, 20])
    assert counted(there, [small, small, found(DOG, BOX)]) == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert counted(there, [found(CAT, AWAY)])[1] == [1, 0, 0]


def test_images_are_apart():
    there = [found(CAT, BOX, image=2)]
    assert counted(truth((CAT, BOX)), there) == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


def test_what_is_said_of_it():
    matrix = confusion_matrix(truth((CAT, BOX), (CAT, AWAY)), [found(DOG, BOX)] * 3)
    assert matrix.classes == ("cat", "dog", "background")
    assert matrix.confused() == [
        ("background", "dog", 2),
        ("cat", "dog", 1),
        ("cat", "background", 1),
    ]
    assert matrix.to_dict() == {
        "iou": 0.5,
        "score": 0.3,
        "classes": ["cat", "dog", "background"],
        "counts": [[0, 1, 1], [0, 0, 0], [0, 2, 0]],
    }
    with pytest.raises(SpecError, match="--iou must be above 0.1 and at most 1; got 50"):
        confusion_matrix(truth(), [], iou=50)
    with pytest.raises(SpecError, match="--score must be 0 to 1; got 30"):
        confusion_matrix(truth(), [], score=30)


def shared(one: list[float], other: list[float], *, of_one: bool = False) -> float:
    """IoU of two boxes of whole pixels, pixel by pixel; or the share of one inside the other."""
    pixels = [
        {
            (x, y)
            for x in range(int(b[0]), int(b[0] + b[2]))
            for y in range(int(b[1]), int(b[1] + b[3]))
        }
        for b in (one, other)
    ]
    return len(pixels[0] & pixels[1]) / len(pixels[0] if of_one else pixels[0] | pixels[1])


def slow(there: dict[str, Any], detections: list[dict[str, Any]], iou: float) -> Counter[Any]:
    """Pairs of class ids, None for the background."""
    pairs: Counter[Any] = Counter()
    left = [each for each in there["annotations"] if not each["iscrowd"]]
    crowds = [each for each in there["annotations"] if each["iscrowd"]]
    for detection in sorted(detections, key=lambda each: each["score"], reverse=True):
        near = [
            (shared(detection["bbox"], each["bbox"]), each)
            for each in left
            if each["image_id"] == detection["image_id"]
        ]
        best = max(near, key=lambda pair: pair[0], default=(0.0, None))
        if best[0] >= iou:
            left = [each for each in left if each is not best[1]]
            pairs[best[1]["category_id"], detection["category_id"]] += 1
        elif not any(
            shared(detection["bbox"], each["bbox"], of_one=True) >= iou
            for each in crowds
            if each["image_id"] == detection["image_id"]
        ):
            pairs[None, detection["category_id"]] += 1
    return pairs + Counter((each["category_id"], None) for each in left)


@pytest.mark.parametrize("seed", range(40))
def test_a_slow_version_counts_the_same(seed: int):
    rng = random.Random(seed)

    def row() -> dict[str, Any]:
        box = [rng.randrange(12), rng.randrange(12), rng.randrange(3, 9), rng.randrange(3, 9)]
        return {"image_id": rng.randrange(2), "category_id": rng.choice([CAT, DOG]), "bbox": box}

    there = truth() | {
        "annotations": [row() | {"iscrowd": int(rng.random() < 0.2)} for _ in range(12)]
    }
    detections = [row() | {"score": rng.random()} for _ in range(25)]
    expected = slow(there, [each for each in detections if each["score"] >= 0.2], 0.37)
    counts = confusion_matrix(there, detections, iou=0.37, score=0.2).counts
    ids = [CAT, DOG, None]
    assert counts.tolist() == [[expected[i, j] for j in ids] for i in ids]
