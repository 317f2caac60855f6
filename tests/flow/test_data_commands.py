"""`nas check-data --report`, `nas convert` and `nas tile`, with data without splits and zipped."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.coco_files import changed_copy
from helpers.commands import Json, Run


@pytest.fixture
def unsplit(digits: Path, tmp_path: Path) -> Path:
    """The digits as Label Studio writes them."""
    root = tmp_path / "unsplit"
    shutil.copytree(digits / "train", root / "images")
    shutil.copyfile(digits / "instances_train.json", root / "result.json")
    return root


def test_data_without_splits(unsplit: Path, nas: Run, nas_json: Json, tmp_path: Path):
    train, val = nas_json("check-data", unsplit)
    assert (train["split"], val["split"]) == ("train", "val")
    assert val["part"] == "a fifth of the images of result.json"
    share = val["images"] / (train["images"] + val["images"])
    assert 0.15 < share < 0.25
    code, said, _ = nas("convert", unsplit, tmp_path / "plain")
    assert code == 0
    assert f"instances_val.json: {val['images']} images, {val['boxes']} boxes" in said
    again = nas_json("check-data", tmp_path / "plain")
    for before, after in zip((train, val), again, strict=True):
        same = ("images", "boxes", "boxes_per_category", "problems")
        assert [before[key] for key in same] == [after[key] for key in same]
        assert after["part"] == ""


def test_a_zip_file(unsplit: Path, nas_json: Json, tmp_path: Path):
    archive = shutil.make_archive(str(tmp_path / "cells"), "zip", unsplit.parent, unsplit.name)
    assert [each["images"] for each in nas_json("check-data", archive)] == [
        each["images"] for each in nas_json("check-data", unsplit)
    ]


def test_broken_data_are_not_converted_in_silence(unsplit: Path, nas: Run, tmp_path: Path):
    first = sorted((unsplit / "images").iterdir())[0]
    first.write_bytes(first.read_bytes()[:200])
    code, _, said = nas("convert", unsplit, tmp_path / "plain")
    assert code == 2
    assert "or leave them out with --skip-broken" in said
    assert not (tmp_path / "plain").exists()
    assert nas("convert", unsplit, tmp_path / "plain", "--skip-broken")[0] == 0
    assert nas("convert", unsplit, tmp_path / "plain", "--skip-broken")[0] == 2  # is there already


def test_tiles(digits: Path, nas: Run, nas_json: Json, tmp_path: Path):
    code, said, _ = nas("tile", digits, tmp_path / "tiles", "--size", "64", "--overlap", "32")
    assert code == 0
    train = json.loads((tmp_path / "tiles" / "instances_train.json").read_text())
    assert f"{len(train['images'])} images" in said
    assert {(image["width"], image["height"]) for image in train["images"]} == {(64, 64)}
    assert all(not each["problems"] for each in nas_json("check-data", tmp_path / "tiles"))


def test_the_report_opens_without_anything_else(digits: Path, nas: Run, tmp_path: Path):
    out = tmp_path / "a report.html"
    assert nas("check-data", digits, "--report", out)[0] == 0
    html = out.read_text()
    assert html.count("<img") == 1 + 12 + 8  # charts, and images of 24 and 8
    assert all(source.startswith("data:") for source in re.findall(r'(?:src|href)="([^"]*)"', html))
    for words in ("What was found", "The plan for it", "recipe.image_size", "instances_train.json"):
        assert words in html


def test_the_report_quotes_names(digits: Path, nas: Run, tmp_path: Path):
    def change(content: dict[str, Any]) -> None:
        content["categories"][0]["name"] = "<script>alert(1)</script>"

    root = changed_copy(digits, tmp_path / "data", change)
    assert nas("check-data", root, "--report", tmp_path / "r.html")[0] == 0
    assert "<script" not in (tmp_path / "r.html").read_text()


def test_a_recipe_that_decides_nothing_says_so(digits: Path, nas: Run):
    code, said, _ = nas("plan", digits, "--recipe", "tiny")
    assert code == 0
    assert "short side, pixels" in said
    assert "the recipe 'tiny' sets every key; --recipe auto follows the data" in said
    assert "Decided from them" not in said
    assert "sets every key" not in nas("plan", digits)[1]
