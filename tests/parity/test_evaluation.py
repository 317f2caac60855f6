"""`coco_metrics` against pycocotools called by hand on real annotations, and its two engines
against each other on cases that are easily got wrong.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import random
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from nas.evaluation import coco as evaluation_module
from nas.evaluation.coco import by_hotcoco, by_pycocotools, coco_metrics, evaluation_engine

ENGINES = [by_hotcoco, by_pycocotools]


@pytest.fixture(params=ENGINES, ids=lambda engine: engine.__name__)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(evaluation_module, "evaluation_engine", lambda: request.param)
    return request.param


def perturbed(coco: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """Most boxes, moved a little, some with another class, and false ones besides."""
    rng = random.Random(seed)
    categories = [category["id"] for category in coco["categories"]]
    found = []
    for annotation in coco["annotations"]:
        x, y, w, h = annotation["bbox"]
        for _ in range(rng.choice([0, 1, 1, 1, 2])):
            box = [
                x + rng.gauss(0, 0.1) * w,
                y + rng.gauss(0, 0.1) * h,
                w * rng.uniform(0.8, 1.2),
                h * rng.uniform(0.8, 1.2),
            ]
            category = annotation["category_id"] if rng.random() < 0.9 else rng.choice(categories)
            found.append(
                {
                    "image_id": annotation["image_id"],
                    "category_id": category,
                    "bbox": box,
                    "score": rng.random(),
                }
            )
    for image in coco["images"]:
        for _ in range(rng.choice([0, 5, 20, 120])):
            box = [
                rng.uniform(0, 300),
                rng.uniform(0, 300),
                rng.uniform(1, 200),
                rng.uniform(1, 200),
            ]
            found.append(
                {
                    "image_id": image["id"],
                    "category_id": rng.choice(categories),
                    "bbox": box,
                    "score": 0.5 * rng.random(),
                }
            )
    return found


def by_hand(path: Path, detections: list[dict[str, Any]], iou_type: str = "bbox") -> np.ndarray:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        evaluation = COCOeval(truth, truth.loadRes(detections), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def test_hotcoco_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch):
    assert evaluation_engine() is by_hotcoco
    monkeypatch.setattr(evaluation_module.importlib.util, "find_spec", lambda name: None)
    assert evaluation_engine() is by_pycocotools


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(("split", "seed"), [("train", 0), ("val", 1)])
def test_twelve_figures_equal_pycocotools(
    coco_mini: Path, split: str, seed: int, capsys: pytest.CaptureFixture[str]
):
    path = coco_mini / f"instances_{split}.json"
    coco = json.loads(path.read_text())
    detections = perturbed(coco, seed)
    expected = by_hand(path, detections)
    for ground_truth in (str(path), coco):
        metrics = coco_metrics(ground_truth, detections)
        assert np.allclose(astuple(metrics)[:12], expected, rtol=0, atol=1e-12)
    assert 0.1 < metrics.map < 0.9
    assert coco == json.loads(path.read_text())  # unchanged
    assert capsys.readouterr().out == ""
    defined = [value for value in metrics.map_per_class.values() if value is not None]
    assert np.mean(defined) == pytest.approx(metrics.map, abs=1e-12)
    assert len(metrics.map_per_class) == 80


@pytest.mark.usefixtures("engine")
def test_masks_equal_pycocotools(coco_mini: Path):
    path = coco_mini / "instances_val.json"
    coco = json.loads(path.read_text())
    rng = random.Random(0)
    detections = []
    for annotation in coco["annotations"]:
        if not annotation["iscrowd"]:
            moved = [
                [value + rng.gauss(0, 3) for value in polygon]
                for polygon in annotation["segmentation"]
            ]
            x, y, w, h = annotation["bbox"]
            detections.append(
                {
                    "image_id": annotation["image_id"],
                    "category_id": annotation["category_id"],
                    "score": rng.random(),
                    "segmentation": _encoded(moved, annotation["image_id"], coco),
                    "bbox": [x, y, w, h],
                }
            )
    # pycocotools takes the area of a `bbox` for that of the mask: give it masks only.
    masks = [
        {key: value for key, value in detection.items() if key != "bbox"}
        for detection in detections
    ]
    metrics = coco_metrics(path, detections, iou_type="segm")
    assert metrics == coco_metrics(path, masks, iou_type="segm")
    assert np.allclose(astuple(metrics)[:12], by_hand(path, masks, "segm"), rtol=0, atol=1e-12)
    assert 0.1 < metrics.map < 1


def _encoded(polygons: list[list[float]], image_id: int, coco: dict[str, Any]) -> dict[str, Any]:
    from pycocotools import mask

    image = next(image for image in coco["images"] if image["id"] == image_id)
    return mask.merge(mask.frPyObjects(polygons, image["height"], image["width"]))


def small(count: int, crowds: bool, first_id: int, seed: int = 0) -> dict[str, Any]:
    """Boxes of three classes on four images, of which the last has none, one class without any."""
    rng = random.Random(seed)
    annotations = []
    for number in range(count):
        side = rng.choice([10, 50, 150])
        annotations.append(
            {
                "id": first_id + number,
                "image_id": rng.choice([0, 7, 2**40]),
                "category_id": rng.choice([1, 90]),
                "bbox": [rng.uniform(0, 40), rng.uniform(0, 40), side, side],
                "area": side * side * rng.uniform(0.5, 1),
                "iscrowd": int(crowds and rng.random() < 0.3),
            }
        )
    return {
        "images": [{"id": i, "width": 200, "height": 200} for i in (0, 7, 2**40, 9)],
        "categories": [{"id": i, "name": str(i)} for i in (90, 1, 4)],
        "annotations": annotations,
    }


CASES = {
    "plain": small(30, crowds=False, first_id=1),
    "crowds": small(30, crowds=True, first_id=1),
    "annotation id 0": small(30, crowds=True, first_id=0),
    "no annotations": small(0, crowds=False, first_id=1),
}


@pytest.mark.parametrize("detected", [True, False])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_both_engines_agree(
    case: str, detected: bool, iou_type: str, monkeypatch: pytest.MonkeyPatch
):
    coco = CASES[case]
    found = perturbed(coco, 3) if detected else []
    if iou_type == "segm":
        corners = {"size": [200, 200]}
        found = [{**each, "segmentation": corners | _rectangle(each["bbox"])} for each in found]
    figures = []
    for engine in ENGINES:
        monkeypatch.setattr(evaluation_module, "evaluation_engine", lambda engine=engine: engine)
        metrics = coco_metrics(coco, found, iou_type)
        rows = [*astuple(metrics)[:12], *metrics.map_per_class.values()]
        figures.append([math.nan if value is None else value for value in rows])
        assert [*metrics.map_per_class] == ["1", "4", "90"]
    assert np.allclose(*figures, rtol=0, atol=1e-12, equal_nan=True)


def test_the_first_annotation_counts_though_its_id_is_zero():
    """0 is "no match" to COCO's evaluation: of one perfect detection it would make a mAP of 0."""
    coco = small(1, crowds=False, first_id=0)
    (box,) = coco["annotations"]
    found = {key: box[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
    assert coco_metrics(coco, [found]).map == pytest.approx(1)


def _rectangle(bbox: list[float]) -> dict[str, Any]:
    from pycocotools import mask

    pixels = np.zeros((200, 200), dtype=np.uint8, order="F")
    x, y, w, h = (int(value) for value in bbox)
    pixels[max(y, 0) : y + h, max(x, 0) : x + w] = 1
    return {"counts": mask.encode(pixels)["counts"].decode()}
