"""The example that turns Pascal VOC's form into COCO's."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import Run
from PIL import Image

EXAMPLE = Path(__file__).parents[3] / "examples" / "voc_to_coco.py"
OBJECT = (
    "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin>"
    "<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Two images to train on, one with a box of no size, and one to score."""
    root = tmp_path / "voc"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    boxes = {
        "one": [("red", 2, 3, 12, 23), ("blue", 5, 5, 5, 9)],
        "two": [("blue", 0, 0, 40, 30)],
        "three": [("red", 1, 1, 9, 9)],
    }
    for name, objects in boxes.items():
        inside = "".join(OBJECT.format(*found) for found in objects)
        size = "<size><width>40</width><height>30</height></size>"
        (root / "Annotations" / f"{name}.xml").write_text(
            f"<annotation>{size}{inside}</annotation>"
        )
        Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(root / "JPEGImages" / f"{name}.jpg")
    (root / "ImageSets/Main/train.txt").write_text("one\ntwo\n")
    (root / "ImageSets/Main/val.txt").write_text("three\n")
    return root


def test_boxes_and_images_arrive(
    voc: Path, tmp_path: Path, nas: Run, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "coco"
    runpy.run_path(str(EXAMPLE))["convert"](voc, out)
    assert "train: 2 images, 2 boxes, 1 of no size left out" in capsys.readouterr().out
    written = json.loads((out / "instances_train.json").read_text())
    assert [image["file_name"] for image in written["images"]] == ["one.jpg", "two.jpg"]
    names = {category["id"]: category["name"] for category in written["categories"]}
    found = [
        (entry["image_id"], names[entry["category_id"]], entry["bbox"])
        for entry in written["annotations"]
    ]
    assert found == [(1, "red", [2, 3, 10, 20]), (2, "blue", [0, 0, 40, 30])]
    assert (out / "train" / "one.jpg").read_bytes() == (voc / "JPEGImages" / "one.jpg").read_bytes()
    assert (
        json.loads((out / "instances_val.json").read_text())["categories"] == written["categories"]
    )
    code, said, _ = nas("check-data", out)
    assert code == 0, said
