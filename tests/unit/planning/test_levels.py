"""Levels by the plan's closed forms, against the assignments that the detectors train with."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.splits import Object, split_of

from nas.config.sections import DetectorSpec
from nas.planning.levels import LevelUse, level_use, levels_of


def test_fcos_by_its_published_ranges():
    # Farthest side 64, 128, 256, 512 pixels from the middle.
    sides = np.array([[20, 127], [129, 20], [255, 255], [257, 1], [1000, 1], [1100, 1100]], float)
    assert levels_of(sides, DetectorSpec(name="fcos")).tolist() == [0, 1, 1, 2, 3, 4]
    half = DetectorSpec(name="fcos", object_scale=0.5)
    assert levels_of(sides / 2, half).tolist() == [0, 1, 1, 2, 3, 4]


def test_reppoints_by_the_mean_logarithm():
    sides = np.array([[32, 32], [63, 63], [65, 65], [32, 128], [5, 5], [5000, 5000]], float)
    assert levels_of(sides, DetectorSpec(name="reppoints_v2")).tolist() == [0, 0, 1, 1, 0, 4]


@pytest.mark.parametrize(("name", "first"), [("atss", 64), ("faster_rcnn", 32)])
def test_anchors_by_their_overlap(name: str, first: int):
    sides = first * np.array([[0.1, 0.1], [1, 1], [1.4, 1.4], [1.45, 1.45], [4, 4], [99, 99]])
    assert levels_of(sides, DetectorSpec(name=name)).tolist() == [0, 0, 0, 1, 2, 4]


def test_regions_by_equation_1_of_feature_pyramids():
    sides = np.array([[50, 50], [113, 113], [224, 224], [448, 448], [2000, 2000]], float)
    assert levels_of(sides, DetectorSpec(name="sparse_rcnn")).tolist() == [0, 1, 2, 3, 3]


def test_a_split_is_counted_at_the_training_size(tmp_path):
    objects = [
        Object(1, (0, 0, 20, 20)),
        Object(1, (0, 0, 40, 40)),
        Object(2, (0, 0, 90, 90)),
        Object(2, (0, 0, 9, 9), iscrowd=1),
    ]
    split = split_of(tmp_path, [(200, 100), (50, 100)], objects)
    # At 200 pixels the sides are 40, 80 and 360, in strides of 8 and of 16 and 32.
    found = level_use(split, DetectorSpec(name="fcos"), 200)
    assert found[0] == LevelUse(8, 2, 7.5)
    assert found[2] == LevelUse(32, 1, 11.2)
    assert [level.objects for level in found] == [2, 0, 1, 0, 0]
    assert found[1].cells is None
