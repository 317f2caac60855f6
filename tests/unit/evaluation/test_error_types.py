"""One error of each type, and what AP would be without it."""

from __future__ import annotations

from typing import Any

import pytest

from nas.errors import SpecError
from nas.evaluation import error_types as module
from nas.evaluation.error_types import error_types

CAT, DOG = 1, 2
HERE, NEAR, FAR = [0, 0, 100, 100], [50, 0, 100, 100], [150, 0, 40, 40]  # IoU 1/3 and 0
THERE = (CAT, HERE)


def truth(*objects: tuple[int, list[int]]) -> dict[str, Any]:
    annotations = [
        {"id": index, "image_id": 1, "category_id": category, "bbox": box}
        for index, (category, box) in enumerate(objects)
    ]
    categories = [{"id": CAT, "name": "cat"}, {"id": DOG, "name": "dog"}]
    images = [{"id": 1, "width": 200, "height": 200}]
    return {"images": images, "categories": categories, "annotations": annotations}


def found(*rows: tuple[int, list[int]]) -> list[dict[str, Any]]:
    """Detections, the surest first."""
    return [
        {"image_id": 1, "category_id": category, "bbox": box, "score": 0.9 - 0.1 * number}
        for number, (category, box) in enumerate(rows)
    ]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([THERE], {}),
        ([(DOG, HERE)], {"classification": 1}),
        ([(CAT, NEAR)], {"localisation": 1}),
        ([(DOG, NEAR)], {"both": 1, "missed": 1}),
        ([THERE, THERE], {"duplicate": 1}),
        ([THERE, (CAT, FAR)], {"background": 1}),
        ([], {"missed": 1}),
    ],
)
def test_each_type_is_what_tide_calls_it(
    rows: list[tuple[int, list[int]]], expected: dict[str, int]
):
    found_types = error_types(truth(THERE), found(*rows)).types
    assert {name: each.count for name, each in found_types.items() if each.count} == expected
    assert list(found_types) == [name for name, _ in module.TYPES.values()]


def test_gains_are_those_of_ap():
    """Two cats; the surest detection is beside the first one, the second is found: precision is 1/2
    at recall 1/2, AP about 1/4; with the first one put right it is 1.
    """
    two = truth(THERE, (CAT, FAR))
    types = error_types(two, found((CAT, NEAR), (CAT, FAR)))
    assert types.ap == pytest.approx(51 / 101 / 2)  # recalls 0, 0.01, ..., 0.5 of 101
    assert types.types["localisation"].gain == pytest.approx(1 - types.ap)
    assert types.types["missed"].gain == pytest.approx(0)
    assert types.to_dict()["types"]["localisation"]["count"] == 1


def test_the_threshold():
    moved = found((CAT, NEAR))
    assert error_types(truth(THERE), moved, iou=0.3).ap == pytest.approx(1)
    with pytest.raises(SpecError, match="--iou must be above 0.1 and at most 1; got 0.1"):
        error_types(truth(THERE), moved, iou=0.1)


def test_without_hotcoco_there_is_a_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "find_spec", lambda package: None)
    with pytest.raises(SpecError, match="need the package hotcoco: pip install hotcoco"):
        error_types(truth(THERE), [])
