"""`coco_metrics` against pycocotools called by hand, on real annotations."""

from __future__ import annotations

import contextlib
import io
import json
import random
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from nas.evaluation.coco import coco_metrics


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
