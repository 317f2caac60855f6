"""Instance masks from a data set's file to a study, a bundle and a picture; and a data set that has
none.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.commands import Run
from helpers.studies import trained_search
from PIL import Image
from pycocotools import mask as coco_mask

from nas.config.spec import load_spec
from nas.export.bundle import read_bundle
from nas.planning.adaptation import BOXES_ONLY, adapt_to_data
from nas.search.search import Search
from nas.study.leaderboard import leaderboard
from workers.driver import run_search

SIDE = 64
FLAGS = {
    "space": "tiny",
    "detector.name": "cascade_mask_rcnn",
    "detector.channels": 32,
    "detector.hidden": 32,
    "detector.regions": 64,
    "recipe.epochs": 2,
    "recipe.batch": 4,
    "search.trials": 1,
    "search.baselines": False,
    "search.try": ["C1-C1-C1-C1@16"],
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Discs and triangles, bright on dark: masks as polygons, as codes, and one box without."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    for split, count in (("train", 12), ("val", 4)):
        (root / split).mkdir(parents=True)
        rng = np.random.default_rng(len(split))
        images, annotations = [], []
        for number in range(1, count + 1):
            canvas = rng.integers(0, 60, (SIDE, SIDE, 3)).astype(np.uint8)
            for corners in (24, 3):
                annotations.append(
                    shape(canvas, rng, corners) | {"id": len(annotations) + 1, "image_id": number}
                )
            Image.fromarray(canvas).save(root / split / f"{number}.png")
            images.append(
                {"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE}
            )
        del annotations[1]["segmentation"]
        categories = [{"id": 3, "name": "triangle"}, {"id": 24, "name": "disc"}]
        coco = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"instances_{split}.json").write_text(json.dumps(coco))
    return root


def shape(canvas: np.ndarray, rng: np.random.Generator, corners: int) -> dict[str, Any]:
    """Draw a regular polygon; its annotation, every second time as a code."""
    x, y, radius = *rng.uniform(18, SIDE - 18, 2), rng.uniform(9, 16)
    angles = [2 * math.pi * corner / corners for corner in range(corners)]
    points = [
        value
        for angle in angles
        for value in (x + radius * math.cos(angle), y + radius * math.sin(angle))
    ]
    code = coco_mask.merge(coco_mask.frPyObjects([points], SIDE, SIDE))
    inside = coco_mask.decode(code).astype(bool)
    canvas[inside] = rng.integers(150, 255, 3)
    text = {"size": [SIDE, SIDE], "counts": code["counts"].decode()}
    return {
        "category_id": corners,
        "bbox": coco_mask.toBbox(code).tolist(),
        "area": int(inside.sum()),
        "iscrowd": 0,
        "segmentation": text if rng.random() < 0.5 else [points],
    }


@pytest.fixture(scope="module")
def study(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Search:
    return trained_search(tmp_path_factory.mktemp("search"), shapes, **FLAGS)


def test_masks_reach_the_study_and_come_back_from_a_bundle(
    study: Search, shapes: Path, tmp_path: Path, nas: Run
):
    (best,) = leaderboard(study.study)
    known = best.user_attrs
    assert best.value == known["map"]
    assert 0 <= known["map_segm"] <= known["map_segm_50"] <= 1
    assert study.study.user_attrs["nas_data"]["masks"]
    assert study.study.user_attrs["nas_spec"]["detector"]["masks"]

    bundle, pictures = tmp_path / "best", tmp_path / "pictures"
    exported = nas("export", "--storage", study.spec.storage, "--out", bundle, "--no-onnx")
    assert exported.code == 0
    assert "map_segm" in (bundle / "README.md").read_text()
    again = nas("evaluate", bundle, "--data", shapes, "--draw", pictures, "--json").json
    assert again["map"] == pytest.approx(known["map"], abs=1e-4)
    assert again["map_segm"] == pytest.approx(known["map_segm"], abs=1e-4)
    assert len(list(pictures.iterdir())) == 4
    code, table, _ = nas("evaluate", bundle, "--data", shapes)
    assert code == 0
    assert "map_segm_50" in table
    assert "triangle" in table


def test_the_same_request_goes_on(study: Search):
    again = run_search(study.spec.model_copy(), local=True)
    assert again.ended == 1
    boxes_only = study.spec.model_copy(
        update={"detector": study.spec.detector.model_copy(update={"masks": False})}
    )
    with pytest.raises(Exception, match="detector.masks was True, now False"):
        run_search(boxes_only, local=True)


def test_data_without_masks_train_boxes_alone_and_say_so_once(
    digits: Path, tmp_path: Path, nas: Run
):
    out = tmp_path / "bundle"
    settings = [
        f"--set={key}={value}"
        for key, value in FLAGS.items()
        if key.startswith(("detector.", "recipe."))
    ]
    printed = nas(
        "train",
        "C1-C1-C1-C1@16",
        "--data",
        digits,
        "--out",
        out,
        "--no-onnx",
        "--recipe",
        "tiny",
        *settings,
    )
    assert printed.code == 0
    assert printed.err.count(BOXES_ONLY) == 1
    trained, detector = read_bundle(out)
    assert not trained.detector.masks
    assert not detector.masks
    assert not any("mask" in name for name in detector.state_dict())
    assert "segm" not in (out / "README.md").read_text()
    code, table, _ = nas("evaluate", out, "--data", digits)
    assert code == 0
    assert "segm" not in table


def test_who_does_not_learn_masks_leaves_them_behind(shapes: Path):
    def request(**flags: object) -> Any:
        return adapt_to_data(load_spec(None, FLAGS | {"data.root": str(shapes), **flags}))

    spec, splits, facts = request()
    assert (spec.detector.learns_masks, splits.train.has_masks, facts.masks) == (True, True, True)
    assert sum(box.segmentation is None for box in splits.train.boxes) == 1
    for flags in ({"detector.name": "faster_rcnn"}, {"detector.masks": False}):
        spec, splits, others = request(**flags)
        assert (spec.detector.learns_masks, splits.train.has_masks, others.masks) == (
            False,
            False,
            False,
        )
        assert others.fingerprint != facts.fingerprint


def test_masks_to_score_alone_are_none_to_learn_from(shapes: Path, tmp_path: Path):
    root = tmp_path / "shapes"
    shutil.copytree(shapes, root)
    coco = json.loads((root / "instances_train.json").read_text())
    for annotation in coco["annotations"]:
        annotation["segmentation"] = []
    (root / "instances_train.json").write_text(json.dumps(coco))
    asked = load_spec(None, FLAGS | {"data.root": str(root)})
    spec, splits, facts = adapt_to_data(asked)
    assert (asked.detector.masks, spec.detector.masks, facts.masks, splits.val.has_masks) == (
        True,
        False,
        False,
        False,
    )
    assert adapt_to_data(spec)[2] == facts  # as `nas resume` asks
