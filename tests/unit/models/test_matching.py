"""Matching by parts, against torchvision's own on the overlaps of all with all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import box_iou

from nas.config.sections import DetectorSpec
from nas.models.detectors import build_detector, matching
from nas.models.detectors.matching import match_boxes
from search_spaces.layout import Layout

PARTS = (1, 7, 64, 10**6)  # pairs at once


def boxes(count: int, generator: torch.Generator, *, whole: bool) -> Tensor:
    """Corners in an image of 64 pixels; of whole numbers many overlaps are equal."""
    corners = torch.rand(count, 4, generator=generator) * 40
    found = torch.cat([corners[:, :2], corners[:, :2] + corners[:, 2:] / 2 + 1], dim=1)
    return found.round() if whole else found


@pytest.mark.parametrize("pairs", PARTS)
@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_parts_match_as_the_whole(
    monkeypatch: pytest.MonkeyPatch, pairs: int, low_quality: bool, whole: bool
):
    monkeypatch.setattr(matching, "PAIRS", pairs)
    generator = torch.Generator().manual_seed(pairs)
    for objects in (1, 2, 9):
        for candidates in (1, 5, 60):
            truth = boxes(objects, generator, whole=whole)
            found = boxes(candidates, generator, whole=whole)
            found[::7] = truth[0]
            for limits in ((0.7, 0.3), (0.5, 0.5)):
                matcher = Matcher(*limits, allow_low_quality_matches=low_quality)
                assert match_boxes(truth, found, matcher).equal(matcher(box_iou(truth, found)))


def test_boxes_without_area_match_as_the_whole(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(matching, "PAIRS", 2)
    nothing = torch.tensor([[3.0, 3, 3, 3], [0, 0, 9, 9]])  # overlap 0 / 0 with itself
    matcher = Matcher(0.7, 0.3, allow_low_quality_matches=True)
    assert match_boxes(nothing, nothing, matcher).equal(matcher(box_iou(nothing, nothing)))


@pytest.mark.parametrize("name", ["faster_rcnn", "cascade_mask_rcnn"])
@pytest.mark.parametrize("pairs", [50, 10**9])
def test_targets_are_torchvisions(monkeypatch: pytest.MonkeyPatch, name: Any, pairs: int):
    monkeypatch.setattr(matching, "PAIRS", pairs)
    spec = DetectorSpec(name=name, channels=32, hidden=32)
    detector: Any = build_detector(Layout.parse("C1-C1-C1-C1@4"), spec, num_classes=3)
    generator = torch.Generator().manual_seed(1)
    truth = [boxes(5, generator, whole=True), torch.zeros(0, 4), boxes(1, generator, whole=False)]
    labels = [torch.tensor([1, 2, 3, 1, 1]), torch.zeros(0, dtype=torch.int64), torch.tensor([2])]
    found = [boxes(30, generator, whole=True) for _ in truth]
    anchors = detector.rpn.assign_targets_to_anchors(found, [{"boxes": each} for each in truth])
    stages = getattr(detector.roi_heads, "stages", [detector.roi_heads])
    regions = [stage.assign_targets_to_proposals(found, truth, labels) for stage in stages]

    detector.rpn.box_similarity = box_iou
    detector.rpn.proposal_matcher = Matcher(0.7, 0.3, allow_low_quality_matches=True)
    targets = [{"boxes": each} for each in truth]
    assert same(
        anchors, RegionProposalNetwork.assign_targets_to_anchors(detector.rpn, found, targets)
    )
    for stage, mine in zip(stages, regions, strict=True):
        assert same(mine, RoIHeads.assign_targets_to_proposals(stage, found, truth, labels))


def same(mine: Any, theirs: Any) -> bool:
    return all(
        one.equal(other)
        for parts in zip(mine, theirs, strict=True)
        for one, other in zip(*parts, strict=True)
    )
