"""Ids of any kind, and the categories of several splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.coco_files import GOOD, write, written

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
