"""Metrics that can be worked out by hand, and the way of a box from the network back to its
image.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pycocotools import mask as coco_mask
from torch import nn

from nas.data.box_table import Box
from nas.data.coco import CocoSplit, ImageRecord
from nas.data.dataset import Batch
from nas.evaluation.coco import coco_metrics, evaluate, xywh_in


def truth(*boxes: tuple[int, int, list[float]], crowd: int = 0) -> dict[str, Any]:
    """Two images of 200 x 200, two classes; boxes as (image, class, [x, y, w, h])."""
    annotations = [
        {
            "id": i,
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": crowd,
        }
        for i, (image, category, box) in enumerate(boxes, start=1)
    ]
    return {
        "images": [{"id": 1, "width": 200, "height": 200}, {"id": 2, "width": 200, "height": 200}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": annotations,
    }


def found(image: int, category: int, box: list[float], score: float = 0.9) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


LARGE, MEDIUM = [10, 10, 100, 100], [120, 120, 50, 50]


def test_perfect():
    ground_truth = truth((1, 1, LARGE), (1, 2, MEDIUM), (2, 1, MEDIUM))
    metrics = coco_metrics(
        ground_truth, [found(1, 1, LARGE), found(1, 2, MEDIUM), found(2, 1, MEDIUM)]
    )
    assert (metrics.map, metrics.map_50, metrics.map_75) == pytest.approx((1, 1, 1))
    assert (metrics.map_medium, metrics.map_large, metrics.map_small) == (
        pytest.approx(1),
        pytest.approx(1),
        None,
    )
    assert (metrics.ar_1, metrics.ar_100) == pytest.approx((1, 1))
    assert metrics.map_per_class == pytest.approx({"cat": 1.0, "dog": 1.0})


def test_nothing_found_is_zero():
    metrics = coco_metrics(truth((1, 1, LARGE), (2, 2, MEDIUM)), [])
    assert (metrics.map, metrics.map_50, metrics.ar_100) == (0, 0, 0)
    assert metrics.map_per_class == {"cat": 0, "dog": 0}


def test_nothing_to_find_is_undefined():
    metrics = coco_metrics(truth(), [found(1, 1, LARGE)])
    assert metrics.map is None
    assert metrics.map_per_class == {"cat": None, "dog": None}


def test_one_of_two_found():
    # Precision 1 up to recall 0.5, then 0: 51 of the 101 recall points.
    metrics = coco_metrics(truth((1, 1, LARGE), (2, 1, LARGE)), [found(1, 1, LARGE)])
    assert metrics.map == pytest.approx(51 / 101)
    assert metrics.ar_100 == pytest.approx(0.5)


def test_intersection_over_union_counts_in_steps():
    # 100 x 100 against 100 x 80 inside it: IoU 0.8, so right at 0.50 to 0.80, seven of ten
    # thresholds.
    metrics = coco_metrics(truth((1, 1, LARGE)), [found(1, 1, [10, 10, 100, 80])])
    assert metrics.map == pytest.approx(0.7)
    assert (metrics.map_50, metrics.map_75) == pytest.approx((1, 1))


def test_a_false_box_before_the_true_one_halves_precision():
    metrics = coco_metrics(
        truth((1, 1, LARGE)), [found(1, 1, [150, 150, 40, 40], 0.95), found(1, 1, LARGE, 0.9)]
    )
    assert metrics.map == pytest.approx(0.5)


def test_wrong_class_and_wrong_image_do_not_count():
    metrics = coco_metrics(truth((1, 1, LARGE)), [found(1, 2, LARGE), found(2, 1, LARGE, 0.1)])
    assert metrics.map == 0


def test_detections_inside_a_crowd_are_neither_right_nor_wrong():
    ground_truth = truth((1, 1, LARGE))
    crowd = {
        "id": 2,
        "image_id": 1,
        "category_id": 1,
        "bbox": [0, 0, 200, 200],
        "area": 40000,
        "iscrowd": 1,
    }
    ground_truth["annotations"].append(crowd)
    others = [found(1, 1, [100 + i, 100, 40, 40], 0.95) for i in range(20)]
    assert coco_metrics(ground_truth, [found(1, 1, LARGE, 0.5), *others]).map == pytest.approx(1)
    assert coco_metrics(
        truth((1, 1, LARGE)), [found(1, 1, LARGE, 0.5), *others]
    ).map == pytest.approx(1 / 21)


def test_area_and_crowd_may_be_left_out():
    ground_truth = truth((1, 1, LARGE))
    for key in ("area", "iscrowd"):
        del ground_truth["annotations"][0][key]
    assert coco_metrics(ground_truth, [found(1, 1, LARGE)]).map_large == pytest.approx(1)
    assert "area" not in ground_truth["annotations"][0]


def test_detections_on_unknown_images_are_refused():
    with pytest.raises(ValueError, match="image_id 3 is not"):
        coco_metrics(truth((1, 1, LARGE)), [found(3, 1, LARGE)])


def test_boxes_return_to_the_original_pixels():
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    assert xywh_in(boxes, (100, 200), (100, 200)) == [[10, 20, 20, 40]]
    assert xywh_in(boxes, (100, 200), (300, 400)) == [[20, 60, 40, 120]]


class Oracle(nn.Module):
    """Knows the right boxes, in the pixels of the resized images."""

    def __init__(self, outputs: list[dict[str, torch.Tensor]]) -> None:
        super().__init__()
        self.outputs = iter(outputs)

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        assert not self.training
        assert torch.is_inference_mode_enabled()
        return [next(self.outputs) for _ in images]


def test_a_perfect_detector_scores_1_whatever_the_resize(tmp_path):
    images = (ImageRecord(1, "a", 300, 150), ImageRecord(7, "b", 90, 120))
    boxes = (Box(1, 1, 4, (30, 15, 120, 60), 7200, 0), Box(2, 7, 2, (9, 12, 45, 60), 2700, 0))
    split = CocoSplit(tmp_path, images, boxes, ((2, "x"), (4, "y")))
    outputs = [
        {
            "boxes": torch.tensor([[20.0, 10, 100, 50]]),
            "scores": torch.tensor([0.9]),
            "labels": torch.tensor([2]),
        },
        {
            "boxes": torch.tensor([[6.0, 8, 36, 48]]),
            "scores": torch.tensor([0.9]),
            "labels": torch.tensor([1]),
        },
    ]
    batch = Batch(
        [torch.zeros(3, 100, 200), torch.zeros(3, 80, 60)],
        [{"image_id": torch.tensor(i)} for i in (1, 7)],
    )
    oracle = Oracle(outputs).train()
    metrics, results, fps = evaluate(oracle, [batch], split, torch.device("cpu"))
    assert metrics.map == pytest.approx(1)
    assert [(r["image_id"], r["category_id"]) for r in results] == [(1, 4), (7, 2)]
    assert results[0]["bbox"] == pytest.approx([30, 15, 120, 60])
    assert fps > 0
    assert oracle.training


def outline(box: list[float]) -> list[list[float]]:
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def test_masks_are_scored_by_their_own_pixels_and_size():
    # Both objects have the box of 100 x 100; the mask of the second is its left fifth, 2000 square
    # pixels: medium.
    ground_truth = truth((1, 1, LARGE), (2, 1, LARGE))
    shapes = [outline(LARGE), outline([10, 10, 20, 100])]
    for annotation, shape, area in zip(
        ground_truth["annotations"], shapes, (10_000, 2_000), strict=True
    ):
        annotation.update(segmentation=shape, area=area)
    detections = [
        found(image, 1, LARGE) | {"segmentation": code(shape)}
        for image, shape in zip((1, 2), shapes, strict=True)
    ]
    metrics = coco_metrics(ground_truth, detections, "segm")
    assert (metrics.map, metrics.map_medium, metrics.map_large) == pytest.approx((1, 1, 1))
    swapped = [
        {**d, "segmentation": code(shape)}
        for d, shape in zip(detections, shapes[::-1], strict=True)
    ]
    assert coco_metrics(ground_truth, swapped, "segm").map == 0
    assert coco_metrics(ground_truth, swapped).map == pytest.approx(1)


def code(polygons: list[list[float]]) -> dict[str, Any]:
    return coco_mask.merge(coco_mask.frPyObjects(polygons, 200, 200))


@pytest.mark.parametrize("missing", [None, []])
def test_an_object_without_a_mask_is_a_place_where_masks_are_neither_right_nor_wrong(
    missing: list | None,
):
    ground_truth = truth((1, 1, LARGE), (1, 1, MEDIUM))
    ground_truth["annotations"][0]["segmentation"] = outline(LARGE)
    ground_truth["annotations"][1]["segmentation"] = missing
    there = found(1, 1, MEDIUM, 0.95) | {"segmentation": code(outline(MEDIUM))}
    elsewhere = found(1, 1, [120, 10, 40, 40], 0.95) | {
        "segmentation": code(outline([120, 10, 40, 40]))
    }
    right = found(1, 1, LARGE, 0.5) | {"segmentation": code(outline(LARGE))}
    assert coco_metrics(ground_truth, [right, there], "segm").map == pytest.approx(1)
    assert coco_metrics(ground_truth, [right, elsewhere], "segm").map == pytest.approx(0.5)


@pytest.mark.parametrize("boxes_only", [False, True])
def test_a_detector_with_masks_is_scored_by_them_too(tmp_path, boxes_only: bool):
    # An image shown at half its size; the object is the lower half of its box.
    half = [[30.0, 45, 150, 45, 150, 75, 30, 75]]
    boxes = (Box(1, 1, 4, (30, 15, 120, 60), 3600, 0, None if boxes_only else half),)
    split = CocoSplit(tmp_path, (ImageRecord(1, "a", 300, 150),), boxes, ((2, "x"), (4, "y")))
    grid = torch.zeros(1, 28, 28)
    grid[:, 14:] = 0.9
    output = {
        "boxes": torch.tensor([[15.0, 7.5, 75, 37.5]]),
        "scores": torch.tensor([0.9]),
        "labels": torch.tensor([2]),
    }
    oracle = Oracle([output | {"masks": grid}])
    oracle.masks = True
    batch = Batch([torch.zeros(3, 75, 150)], [{"image_id": torch.tensor(1)}])
    metrics, results, _ = evaluate(oracle, [batch], split, torch.device("cpu"))
    assert metrics.map == pytest.approx(1)
    assert results[0]["segmentation"]["size"] == [150, 300]
    if boxes_only:
        assert "map_segm" not in metrics.precisions()
        return
    assert metrics.map_segm >= 0.89  # the edge of the mask blurs
    assert metrics.map_segm_50 == pytest.approx(1)
    assert (metrics.map_segm_medium, metrics.map_segm_large) == (
        metrics.map_segm,
        None,
    )  # its area is 3600
    assert set(metrics.precisions()) >= {
        "map",
        "map_per_class",
        "map_segm",
        "map_segm_50",
        "map_segm_medium",
    }
    nothing = Oracle([{name: part[:0] for name, part in output.items()} | {"masks": grid[:0]}])
    nothing.masks = True
    assert evaluate(nothing, [batch], split, torch.device("cpu"))[0].map_segm == 0
