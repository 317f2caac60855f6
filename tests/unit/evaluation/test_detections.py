"""Detections as files: COCO's results, tables, YOLO's text."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nas.errors import SpecError
from nas.evaluation.detections import (
    ImageDetections,
    check_target,
    coco_content,
    write_detections,
)
from nas.utils.shown_text import csv_cell

FOUND = ImageDetections(
    "scans/a.png",
    height=40,
    width=80,
    boxes=np.array([[8.0, 10.0, 24.0, 30.0], [0.0, 0.0, 80.0, 40.0]]),
    scores=np.array([0.9, 0.25]),
    labels=np.array([2, 1]),
    categories=("cat", "dog, small"),
)
NOTHING = FOUND.above(1.0)


def test_scores_and_summary():
    assert len(FOUND) == 2
    assert FOUND.summary() == "1 cat, 1 dog, small"
    assert FOUND.above(0.5).names == ["dog, small"]
    assert NOTHING.summary() == "nothing"


def test_coco_results():
    content = coco_content([NOTHING, FOUND])
    assert content["images"][1] == {
        "id": 2,
        "file_name": "scans/a.png",
        "width": 80,
        "height": 40,
    }
    assert content["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog, small"}]
    assert content["annotations"][0] == {
        "image_id": 2,
        "category_id": 2,
        "bbox": [8.0, 10.0, 16.0, 20.0],
        "score": 0.9,
    }


def test_forms(tmp_path: Path):
    write_detections(tmp_path / "a.json", [FOUND])
    assert json.loads((tmp_path / "a.json").read_text()) == coco_content([FOUND])
    write_detections(tmp_path / "a.csv", [FOUND, NOTHING])
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert [row["category"] for row in rows] == ["dog, small", "cat"]
    assert (rows[0]["x"], rows[0]["width"], rows[0]["score"]) == ("8.00", "16.00", "0.9000")
    write_detections(tmp_path / "yolo", [FOUND, NOTHING])
    first, second = (tmp_path / "yolo").iterdir()
    assert {first.name, second.name} == {"a-1.txt", "a-2.txt"}  # both images are called a
    lines = (tmp_path / "yolo" / "a-1.txt").read_text().splitlines()
    assert lines[0] == "1 0.200000 0.500000 0.200000 0.500000 0.900000"
    assert (tmp_path / "yolo" / "a-2.txt").read_text() == ""


def test_a_table_holds_no_formulas(tmp_path: Path):
    found = replace(FOUND, name="@a.png", categories=("-1", "=cmd|' /C calc'!A0"))
    write_detections(tmp_path / "a.csv", [found])
    for row in csv.DictReader((tmp_path / "a.csv").read_text().splitlines()):
        assert not {row["image"][0], row["category"][0]} & set("=+-@")
        assert float(row["x"]) >= 0
    assert [csv_cell(text) for text in ("", "a=b", " =b", "\tb")] == ["", "a=b", "' =b", "'\tb"]


def test_a_name_in_another_encoding_is_written_as_the_disk_has_it(tmp_path: Path):
    write_detections(tmp_path / "a.csv", [replace(FOUND, name="\udce4.png")])
    assert b"\n\xe4.png,cat," in (tmp_path / "a.csv").read_bytes()


def test_the_longest_names_of_files_get_others(tmp_path: Path):
    found = [replace(FOUND, name=f"{'x' * 249}{number}.jpg") for number in range(2)]
    write_detections(tmp_path / "yolo", found)
    assert len(list((tmp_path / "yolo").iterdir())) == 2


def test_targets(tmp_path: Path):
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "file").write_text("")
    for name in ("a.xml", "folder.json", "file"):
        with pytest.raises(SpecError, match="--out"):
            check_target(tmp_path / name)
    check_target(tmp_path / "new" / "a.csv")
