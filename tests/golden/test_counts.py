"""Parameter counts, to the parameter. The integers are checked against published and worked-out
figures here as well.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nas.config.sections import DetectorSpec
from nas.models.backbones import build_backbone
from nas.models.detectors import build_detector
from nas.profiling.flops import count_cost
from search_spaces.layout import Layout

GOLDEN = json.loads((Path(__file__).parent / "counts.json").read_text())
DETECTORS = GOLDEN["detector, 80 classes"]

# Millions, from an independent count of the paper's designs (four digits) where they agree with
# Table 2 of the paper.
WORKED_OUT = {
    ("fcos", "T2-T2-T6-T2"): 35.7345,
    ("fcos", "C2-C2-T6-T2"): 34.6671,
    ("fcos", "C2-C2-T12-T4"): 59.5099,
    ("fcos", "C3-C4-C6-C3@256"): 32.295,
    ("faster_rcnn", "T2-T2-T6-T2"): 45.1513,
    ("faster_rcnn", "C2-C2-T6-T2"): 44.0839,
    ("faster_rcnn", "C2-C2-T12-T4"): 68.9267,
    ("faster_rcnn", "C3-C4-C6-C3@256"): 41.753,
    ("atss", "T2-T2-T6-T2"): 35.73,
    ("atss", "C2-C2-T6-T2"): 34.6671,  # FCOS's layers
    ("atss", "C2-C2-T12-T4"): 59.5,
    ("atss", "C3-C4-C6-C3@256"): 32.295,
    ("reppoints_v2", "T2-T2-T6-T2"): 44.9164,  # part by part in test_reppoints_counts.py
    ("reppoints_v2", "C2-C2-T6-T2"): 43.85,
    ("reppoints_v2", "C2-C2-T12-T4"): 68.7,
    ("reppoints_v2", "C3-C4-C6-C3@256"): 42.1325,
    # Faster R-CNN's with 54.7852M of three stages (tests/golden/test_cascade.py) for 14.3067M of
    # two layers.
    ("cascade_mask_rcnn", "T2-T2-T6-T2"): 85.6298,
    ("cascade_mask_rcnn", "C2-C2-T6-T2"): 84.5623,
    ("cascade_mask_rcnn", "C2-C2-T12-T4"): 109.4052,
    ("cascade_mask_rcnn", "C3-C4-C6-C3@256"): 82.2315,
    ("sparse_rcnn", "T2-T2-T6-T2"): 109.7412,  # part by part in test_sparse_rcnn_counts.py
    ("sparse_rcnn", "C2-C2-T6-T2"): 108.6737,
    ("sparse_rcnn", "C2-C2-T12-T4"): 133.5165,
    ("sparse_rcnn", "C3-C4-C6-C3@256"): 106.3429,
}


@pytest.mark.parametrize("text", GOLDEN["backbone"])
def test_backbone(text: str):
    with torch.device("meta"):
        backbone = build_backbone(Layout.parse(text))
    assert sum(parameter.numel() for parameter in backbone.parameters()) == GOLDEN["backbone"][text]


@pytest.mark.parametrize(
    ("detector", "text"),
    [(detector, text) for detector in DETECTORS for text in DETECTORS[detector]],
)
def test_detector(detector: str, text: str):
    with torch.device("meta"):
        network = build_detector(Layout.parse(text), DetectorSpec(name=detector), 80)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == DETECTORS[detector][text]
    digits = len(str(WORKED_OUT[detector, text]).split(".")[1])
    assert round(count / 1e6, digits) == WORKED_OUT[detector, text]


def test_differences_that_the_blocks_explain():
    # Six more blocks at width 384 and two at 768: 12 w^2 + 13 w + heads (2 * 7 - 1)^2 each.
    def block(width: int) -> int:
        return 12 * width**2 + 13 * width + (width // 32) * 169

    deeper = 6 * block(384) + 2 * block(768)
    assert deeper == 24_842_808
    for counts in DETECTORS.values():
        assert counts["C2-C2-T12-T4"] - counts["C2-C2-T6-T2"] == deeper


@pytest.mark.parametrize(
    ("text", "published_g"),
    [("T2-T2-T6-T2", 4.49), ("C3-C4-C6-C3@256", 4.09)],
)
def test_multiply_adds_of_published_backbones(text: str, published_g: float):
    # 4.5G (Swin paper, table 1a) and 4.1G (ResNet paper, table 1) at 224 pixels, there with a
    # classifier of a few million.
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        backbone, image = build_backbone(Layout.parse(text)), torch.empty(1, 3, 224, 224)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone(image)
    assert round(counter.get_total_flops() / 2e9, 2) == published_g


def test_multiply_adds_of_a_detector():
    # ATSS with ResNet-50, whose layers are FCOS's, at 800 x 1280: 205.30G with 2 operations for
    # each element of a norm and 1 for each of a ReLU or pooling, which are left out here: 1 to 2
    # per cent.
    cost = count_cost(Layout.parse("C3-C4-C6-C3@256"), DetectorSpec(name="fcos"), 80, (800, 1280))
    assert 0.975 * 205.30 < cost.flops / 1e9 < 205.30
    assert cost.params == DETECTORS["fcos"]["C3-C4-C6-C3@256"]
    assert cost.backbone_params == GOLDEN["backbone"]["C3-C4-C6-C3@256"]
