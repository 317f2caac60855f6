"""Boxes of annotation files: clipped, completed, or refused altogether."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.coco_files import GOOD, write, written
from pycocotools import mask as coco_mask

from nas.data.validation import check_split, usable_splits
from nas.errors import DataError


def test_clipping_changes_box_and_area(tmp_path: Path):
    coco = copy.deepcopy(GOOD)
    coco["annotations"][0]["bbox"] = [-5, 30, 20, 30]
    checked = check_split(write(tmp_path, coco), "train")
    assert checked.split.boxes[0].bbox == (0, 30, 15, 10)
    assert checked.split.boxes[0].area == 150


def test_rounding_of_half_a_pixel_is_clipped_without_a_word(tmp_path: Path):
    coco = copy.deepcopy(GOOD)
    coco["annotations"][1]["bbox"] = [0, 0, 60.3, 40.4]
    checked = check_split(write(tmp_path, coco), "train")
    assert checked.problems == ()
    assert checked.split.boxes[1].bbox == (0, 0, 60, 40)


def boxes_of(coco: dict[str, Any], convert: Callable[[float, float, float, float], list]) -> None:
    for box in coco["annotations"]:
        box["bbox"] = convert(*box["bbox"])


@pytest.mark.parametrize(
    ("convert", "words"),
    [
        (lambda x, y, w, h: [x / 60, y / 40, w / 60, h / 40], "normalised: none of the 3 has"),
        (lambda x, y, w, h: [x, y, x + w, y + h], "corners x1, y1, x2, y2"),
    ],
)
def test_boxes_in_another_form_are_refused(tmp_path: Path, convert: Callable, words: str):
    def changed(coco: dict[str, Any]) -> None:
        coco["annotations"][1]["bbox"] = [10, 20, 30, 15]
        boxes_of(coco, convert)

    checked = check_split(written(tmp_path, changed), "train")
    assert checked.lost[0].kind == "boxes in another form"
    assert words in checked.lost[0].detail
    with pytest.raises(DataError, match="boxes in another form"):
        usable_splits(tmp_path, ("train",), skip_broken=False)


def test_a_mask_without_a_box_has_the_box_of_its_pixels(tmp_path: Path):
    generator = np.random.default_rng(0)
    for number in range(8):
        pixels = np.zeros((40, 60), dtype=np.uint8, order="F")
        y, x = generator.integers(0, 30), generator.integers(0, 50)
        pixels[y : y + generator.integers(1, 10), x : x + generator.integers(1, 10)] = 1
        pixels[y, x] = 1
        code = coco_mask.encode(pixels)
        expected = tuple(coco_mask.toBbox(code).tolist())
        mask = {"size": [40, 60], "counts": code["counts"].decode()}
        root = written(
            tmp_path / str(number),
            lambda coco, mask=mask: coco["annotations"][0].update(bbox=None, segmentation=mask),
        )
        checked = check_split(root, "train")
        assert checked.split.boxes[0].bbox == expected
        assert [problem.kind for problem in checked.problems] == ["mask without a box"]
    polygon = [[5, 6, 25, 6, 25, 16, 5, 16]]
    root = written(
        tmp_path / "polygon",
        lambda coco: coco["annotations"][0].update(bbox=[], segmentation=polygon),
    )
    assert check_split(root, "train").split.boxes[0].bbox == (5, 6, 20, 10)


def test_one_area_for_all_boxes_is_no_area(tmp_path: Path):
    root = written(tmp_path, lambda coco: [box.update(area=1.0) for box in coco["annotations"]])
    checked = check_split(root, "train")
    assert [box.area for box in checked.split.boxes] == [200, 2400, 15.4375]
    (problem,) = checked.problems
    assert (problem.kind, problem.detail[:10]) == ("one area for all boxes", "3 of 1; wi")


def test_boxes_without_an_area_are_no_finding(tmp_path: Path):
    root = written(tmp_path, lambda coco: [box.pop("area") for box in coco["annotations"]])
    checked = check_split(root, "train")
    assert [box.area for box in checked.split.boxes] == [200, 2400, 15.4375]
    assert checked.problems == ()


def test_a_mask_beyond_its_image_gives_a_box_that_is_clipped(tmp_path: Path):
    polygon = [[50, 30, 70, 30, 70, 45, 50, 45]]

    def changed(coco: dict[str, Any]) -> None:
        del coco["annotations"][0]["bbox"]
        coco["annotations"][0]["segmentation"] = polygon

    checked = check_split(written(tmp_path, changed), "train")
    assert checked.split.boxes[0].bbox == (50, 30, 10, 10)
    assert [p.kind for p in checked.problems] == [
        "mask without a box",
        "box partly outside the image",
    ]


@pytest.mark.parametrize("area", [10**400, float("inf"), float("nan"), "150", True, None])
def test_an_area_that_is_none_is_that_of_the_box(tmp_path: Path, area: object):
    root = written(tmp_path, lambda coco: coco["annotations"][0].update(area=area))
    found = check_split(root, "train").split.boxes[0].area
    assert found == (1 if area is True else 200)
