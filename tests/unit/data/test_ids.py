"""Ids of any kind, and the categories of several splits."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from helpers.coco_files import GOOD, write, written

from nas.data.annotation_files import read_entries
from nas.data.validation import check_split
from nas.errors import DataError


def test_ids_of_any_kind_lead_to_the_same_boxes(tmp_path: Path):
    plain = check_split(write(tmp_path / "plain", GOOD), "train").split
    spellings = {
        "text": {1: "1", 2: "2"},
        "float": {1: 1.0, 2: "2.0"},
        "names": {1: "a frame", 2: "b"},
        "hashes": {1: 2**70, 2: str(2**70 + 1)},
    }
    for name, ids in spellings.items():

        def renamed(coco: dict[str, Any], ids: dict[int, Any] = ids) -> None:
            for image in coco["images"]:
                image["id"] = ids[image["id"]]
            for box in coco["annotations"]:
                box["image_id"] = ids[box["image_id"]]

        checked = check_split(written(tmp_path / name, renamed), "train")
        assert checked.lost == []
        files = {image.id: image.file_name for image in checked.split.images}
        assert all(abs(number) < 2**53 for number in files)
        expected = {image.id: image.file_name for image in plain.images}
        assert [(files[b.image_id], b.bbox) for b in checked.split.boxes] == [
            (expected[b.image_id], b.bbox) for b in plain.boxes
        ]


def test_categories_numbered_by_text_keep_their_boxes(tmp_path: Path):
    def renamed(coco: dict[str, Any]) -> None:
        for category in coco["categories"]:
            category["id"] = f"c{category['id']}"
        for box in coco["annotations"]:
            box["category_id"] = f"c{box['category_id']}"

    split = check_split(written(tmp_path, renamed), "train").split
    names = dict(split.categories)
    assert [names[box.category_id] for box in split.boxes] == ["cat", "dog", "cat"]


def test_an_entry_without_an_id_beside_ids_of_text_is_an_error_not_a_fault(tmp_path: Path):
    def changed(coco: dict[str, Any]) -> None:
        coco["images"][0]["id"] = "a"
        coco["images"][1]["id"] = None

    with pytest.raises(DataError, match="an image needs an id"):
        check_split(written(tmp_path, changed), "train")


@pytest.mark.parametrize("annotations", ["as entries", "as dictionaries"])
def test_a_file_is_read_the_same_in_less_memory(tmp_path: Path, annotations: str):
    """Strict JSON is read as entries; NaN, which Python writes, makes it dictionaries."""
    coco = copy.deepcopy(GOOD)
    coco["annotations"][0] |= {"segmentation": [[5, 6, 25, 6.5, 15, 16]], "area": 150}
    coco["annotations"].append({**coco["annotations"][0]})  # listed twice
    coco["annotations"].append({**coco["annotations"][0], "id": None, "bbox": [1, 1, 5, 5]})
    for entry in coco["annotations"]:
        entry["image_id"] = str(entry["image_id"])
    if annotations == "as dictionaries":
        coco["info"] = {"version": float("nan")}
    content = read_entries(write(tmp_path, coco) / "instances_train.json")
    assert isinstance(content["annotations"][0], dict) is (annotations == "as dictionaries")
    checked = check_split(tmp_path, "train")
    assert checked.split.boxes.segmentation(0) == [[5, 6, 25, 6.5, 15, 16]]
    assert [box.id for box in checked.split.boxes] == [1, 2, 3, 4]
    kinds = [
        issue.kind for issue in checked.problems if "number" in issue.kind or "twice" in issue.kind
    ]
    assert kinds == ["annotation listed twice", "annotation without a number"]
