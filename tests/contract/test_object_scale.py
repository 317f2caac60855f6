"""`detector.object_scale`: every detector whose levels are for objects of certain sizes takes them
in proportion.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from nas.config.sections import DetectorSpec
from nas.models.detectors import Detector, build_detector
from nas.models.detectors.dense_head import centers_of
from nas.models.detectors.reppoints_targets import initial_match
from nas.planning.levels import levels_of
from search_spaces.layout import Layout

LAYOUT = Layout.parse("C1-C1-C1-C1@16")
SIZE, CENTRE = (1024, 1024), 512
SIDES = [16, 32, 64, 128, 256]
NAMES = ["fcos", "atss", "reppoints_v2", "faster_rcnn", "cascade_mask_rcnn"]


def built(name: str, object_scale: float) -> Detector:
    spec = DetectorSpec(name=name, channels=32, hidden=64, object_scale=object_scale)
    return build_detector(LAYOUT, spec, 1)


def level_of(detector: Detector, side: float) -> int:
    """Level that a square object in the middle of the image is learned on by the location in its
    middle, which every level has; of several the one whose anchor is most like it.
    """
    box = torch.tensor([[CENTRE - side / 2] * 2 + [CENTRE + side / 2] * 2])
    generator = (
        detector.rpn.anchor_generator if hasattr(detector, "rpn") else detector.anchor_generator
    )
    anchors, counts = generator.of_image(SIZE, torch.device("cpu")), generator.counts(SIZE)
    middle = (centers_of(anchors) == CENTRE).all(dim=1)
    found = middle & _positive(detector, anchors, counts, box)
    likeness = torch.where(found, box_iou(anchors, box)[:, 0], -1.0)
    level = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    assert found.any()
    return int(level[likeness.argmax()])


def _positive(detector: Detector, anchors: Tensor, counts: list[int], box: Tensor) -> Tensor:
    if hasattr(detector, "rpn"):
        target = {"boxes": box, "labels": torch.ones(1, dtype=torch.int64)}
        (labels,), _ = detector.rpn.assign_targets_to_anchors([anchors], [target])
        return labels == 1
    if hasattr(detector, "match"):
        return detector.match(anchors, counts, box) >= 0
    levels = [(SIZE[0] // stride, SIZE[1] // stride, stride) for stride in (8, 16, 32, 64, 128)]
    return initial_match(centers_of(anchors), levels, box, detector.object_scale) >= 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("object_scale", [0.25, 0.5, 2.0])
def test_levels_take_objects_in_proportion(name: str, object_scale: float):
    published, scaled = built(name, 1.0), built(name, object_scale)
    sides = [side for side in (48, 96, 192, 384) if 24 <= side * object_scale <= 800]
    levels = [level_of(published, side) for side in sides]
    assert len(set(levels)) > 1
    assert [level_of(scaled, side * object_scale) for side in sides] == levels


@pytest.mark.parametrize("name", NAMES)
def test_a_smaller_scale_sends_an_object_to_coarser_levels(name: str):
    steps = [level_of(built(name, scale), 96) for scale in (1.0, 0.5, 0.25)]
    assert steps == [steps[0], steps[0] + 1, steps[0] + 2]


@pytest.mark.parametrize("name", NAMES)
def test_the_plan_counts_objects_on_the_level_that_learns_them(name: str):
    for scale, side in ((1.0, 40), (1.0, 150), (0.5, 150), (0.5, 600), (0.25, 40)):
        spec = DetectorSpec(name=name, object_scale=scale)
        expected = level_of(built(name, scale), side)
        assert levels_of(np.array([[side, side]], float), spec).tolist() == [expected]


@pytest.mark.parametrize("name", ["faster_rcnn", "cascade_mask_rcnn"])
def test_anchors_have_eight_strides_times_the_scale(name: str):
    anchors = built(name, 0.5).rpn.anchor_generator.of_image((64, 64), torch.device("cpu"))
    areas = (anchors[:, 2:] - anchors[:, :2]).prod(dim=1)
    sides = sorted({round(math.sqrt(area)) for area in areas.tolist()})
    rounded = [min(sides, key=lambda side, wanted=wanted: abs(side - wanted)) for wanted in SIDES]
    assert rounded == SIDES
    assert all(min(abs(side - wanted) for wanted in SIDES) <= 1 for side in sides)  # of corners
