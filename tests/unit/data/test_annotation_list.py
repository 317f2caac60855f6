"""Annotations read as columns: the same boxes and findings as from a list of dictionaries."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.coco_files import GOOD, write, written

from nas.data.annotation_files import read_annotations, read_entries
from nas.data.annotation_list import AnnotationList
from nas.data.box_validation import read_boxes
from nas.data.coco import ImageRecord
from nas.data.findings import Findings
from nas.data.validation import check_split

IMAGES = {7: ImageRecord(7, "a.jpg", 100, 60), 3: ImageRecord(3, "b.jpg", 40, 80)}
ODD: dict[str, list[Any]] = {
    "id": [0, -4, 5, "6", 7.0, None, 2**60, 10**30, True, "a"],
    "image_id": [9, "7", 3.0, None, [3], 10**40],
    "category_id": [99, "1", 2.0, None],
    "bbox": [
        [1, 2, 0, 4],
        [20, 30, -5, -6],
        [-0.0, 0.3, 3, 9.25],
        [-0.2, 5, 10, 10],
        [90.0, 5, 10.3, 10],
        [95, 50, 10, 20],
        [200, 5, 10, 10],
        [1, 2, 3],
        [1, 2, 3, 4, 5],
        ["1", "2", "3", "4"],
        [1, 2, 3, 10**400],
        [5, 5, 1e-9, 5],
        None,
        [],
        "box",
    ],
    "area": [0, -1, 3, "4", None, 10**400, True, 1e6],
    "iscrowd": [1, True, False, None, 1.0, "1", "yes", 0],
    "segmentation": [
        [],
        None,
        [[5, 6, 25, 6.5, 15, 16]],
        [[5, 6, 25, 6.5, 15, 16], [1, 2, 3, 4, 5, 6]],
        [[5, 6, 25, 6.5]],
        [[5, 6, 25, 6.5, 15, 16], [1, 2]],
        [[5, 6, 25, 6.5, 15, 9000]],
        [[5, 6, True, 6.5, 15, 16]],
        [],
        {"size": [60, 100], "counts": [3000, 3000]},
        {"size": [60, 100], "counts": "x"},
        "mask",
        [1, 2, 3, 4, 5, 6],
    ],
}


def annotation(rng: random.Random, number: int) -> dict[str, Any]:
    x, y = rng.randint(0, 20), rng.uniform(0, 30)
    entry = {
        "id": number,
        "image_id": rng.choice([7, 3]),
        "category_id": rng.choice([1, 2]),
        "bbox": [x, y, rng.uniform(1, 15), rng.randint(2, 20)],
        "area": rng.uniform(1, 30),
        "iscrowd": rng.choice([0, 0, 0, 1]),
        "segmentation": [[x, y, x + 9, y, x + 5.5, y + 8]],
    }
    for key in rng.sample(sorted(ODD), rng.choice([0, 0, 1, 1, 2])):
        if rng.random() < 0.2:
            del entry[key]
        else:
            entry[key] = rng.choice(ODD[key])
    return entry


def annotations(rng: random.Random) -> list[dict[str, Any]]:
    entries = [annotation(rng, number) for number in range(1, rng.randint(2, 40))]
    entries += [dict(rng.choice(entries)) for _ in range(rng.choice([0, 0, 1, 5]))]
    if rng.random() < 0.1:
        for entry in entries:
            entry["area"] = 17.0
    return entries


@pytest.mark.parametrize("seed", range(40))
def test_columns_find_what_one_by_one_finds(tmp_path: Path, seed: int):
    rng = random.Random(seed)
    for _ in range(10):
        path = tmp_path / "file.json"
        content = {"images": [], "annotations": annotations(rng), "categories": []}
        path.write_text(json.dumps(content))
        found = []
        for read in (read_annotations, read_entries):
            findings = Findings()
            entries = read(path)["annotations"]
            boxes = read_boxes(entries, IMAGES, [1, 2], "file.json", findings)
            found.append(([box.to_coco() for box in boxes], findings.problems))
        assert isinstance(entries, AnnotationList)
        assert repr(found[0]) == repr(found[1])  # -0.0 and 0.0 differ


def test_sound_annotations_are_checked_as_columns(tmp_path: Path):
    entries = read_entries(write(tmp_path, GOOD) / "instances_train.json")["annotations"]
    assert entries.stated.plain.all()
    assert [entry.get("bbox") for entry in entries[1:]] == [
        entry["bbox"] for entry in GOOD["annotations"][1:]
    ]
    chosen = entries.only([False, True, True])
    assert len(chosen) == 2
    assert chosen[0].get("id") == GOOD["annotations"][1]["id"]
    assert np.array_equal(chosen.stated.boxes.ids, entries.stated.boxes.ids[1:])


def test_numbers_beyond_64_bits_and_lists_are_named_not_met_later(tmp_path: Path):
    def changed(coco: dict[str, Any]) -> None:
        coco["annotations"][0]["segmentation"] = [[1, 2, 3, 4, 5, 10**400]]

    checked = check_split(written(tmp_path, changed), "train")
    assert [issue.kind for issue in checked.problems if "mask" in issue.kind] == ["malformed mask"]
