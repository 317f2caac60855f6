"""Splits whose lists of categories differ, and Roboflow's."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.coco_files import GOOD, write, written

from nas.data.validation import check_split, usable_splits
from nas.errors import DataError


def test_categories_that_only_one_split_has_are_named(tmp_path: Path):
    write(tmp_path, GOOD)
    other = copy.deepcopy(GOOD)
    other["categories"][0]["name"] = "wolf"
    write(tmp_path, other, "val")
    with pytest.raises(DataError, match="category that 'train' does not have .'wolf', 1 boxes"):
        usable_splits(tmp_path, ("train", "val"), skip_broken=False)
    _, val = usable_splits(tmp_path, ("train", "val"), skip_broken=True)
    assert [box.category_id for box in val.split.boxes] == [3, 3]
    other["annotations"][1]["category_id"] = 3  # none is a wolf now
    write(tmp_path, other, "val")
    _, val = usable_splits(tmp_path, ("train", "val"), skip_broken=False)
    assert val.problems[-1].detail == "lacks 'dog'; lists without boxes 'wolf'"


def test_a_split_may_lack_categories_or_number_them_otherwise(tmp_path: Path):
    write(tmp_path, GOOD)
    other = copy.deepcopy(GOOD)
    other["categories"] = [{"id": 1, "name": "cat"}]
    other["annotations"] = [{**box, "category_id": 1} for box in other["annotations"]]
    write(tmp_path, other, "val")
    train, val = usable_splits(tmp_path, ("train", "val"), skip_broken=False)
    assert val.split.categories == train.split.categories
    assert {box.category_id for box in val.split.boxes} == {3}
    assert val.problems[-1].detail == "lacks 'dog'; numbers otherwise 'cat'"


def test_halves_of_characters_are_marked(tmp_path: Path):
    """They could be written to no file, by the first candidate for example."""

    def halves(coco: dict[str, Any]) -> None:
        coco["categories"][0]["name"] = "a\ud800b\udcff"
        coco["categories"][1]["name"] = "\ud83d\ude00"  # two that belong together

    checked = check_split(written(tmp_path, halves), "train")
    names = [name for _, name in checked.split.categories]
    assert sorted(names) == ["a\ufffdb\ufffd", "\U0001f600"]


def test_many_categories_take_a_moment(tmp_path: Path):
    """As many of one name, and as many below another."""

    def many(coco: dict[str, Any]) -> None:
        for number in range(20_000):
            name, above = f"c{number // 2}", f"c{number // 2 + 1}"
            coco["categories"].append({"id": 100 + number, "name": name, "supercategory": above})

    began_s = time.process_time()
    checked = check_split(written(tmp_path, many), "train")
    assert time.process_time() - began_s < 5  # the square of their number takes longer
    assert len({name for _, name in checked.split.categories}) == 20_002


def test_roboflows_category_above_all_others_is_left_out(tmp_path: Path):
    def root_added(coco: dict[str, Any]) -> None:
        for category in coco["categories"]:
            category["supercategory"] = "animals"
        coco["categories"].insert(0, {"id": 0, "name": "animals", "supercategory": "none"})

    checked = check_split(written(tmp_path, root_added), "train")
    assert checked.split.categories == ((3, "cat"), (7, "dog"))
    assert [problem.kind for problem in checked.problems] == ["category above all others"]

    def used(coco: dict[str, Any]) -> None:
        root_added(coco)
        coco["annotations"][0]["category_id"] = 0

    checked = check_split(written(tmp_path / "used", used), "train")
    assert [name for _, name in checked.split.categories] == ["animals", "cat", "dog"]
