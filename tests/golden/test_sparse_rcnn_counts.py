"""Sparse R-CNN's parameters and multiply-adds: to the last one by closed forms, and beside the printed figures.

The paper's Table 5 prints 106M and 166G with ResNet-50, 110M and 172G with Swin-T, as Table 2c of the Swin paper does.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from nas.cost import Cost, count_cost
from nas.spec import DetectorSpec
from search_spaces.layout import Layout

GOLDEN = json.loads((Path(__file__).parent / "counts.json").read_text())
RESNET, SWIN = "C3-C4-C6-C3@256", "T2-T2-T6-T2"
SIZE = (800, 1280)
C, D, K, P, STAGES, CELLS = 256, 64, 80, 300, 6, 49


def cost(text: str, proposals: int = P) -> Cost:
    return count_cost(Layout.parse(text), DetectorSpec(name="sparse_rcnn", proposals=proposals), K, SIZE)


@pytest.mark.parametrize("text", GOLDEN["detector, 80 classes"]["sparse_rcnn"])
def test_parameters_by_parts(text: str):
    pyramid = sum(width * C + C for width in Layout.parse(text).widths) + 4 * (9 * C**2 + C)
    attention, ffn = 4 * C**2 + 4 * C, 2 * 8 * C**2 + 8 * C + C
    interaction = (C + 1) * 2 * C * D + 2 * (D + C + C) + CELLS * C**2 + C
    towers, predictors = 4 * (C**2 + 2 * C), (C + 1) * (K + 4)
    head = STAGES * (attention + interaction + ffn + towers + predictors + 3 * 2 * C) + P * (C + 4)
    counted = cost(text)
    assert counted.params == counted.backbone_params + pyramid + head == GOLDEN["detector, 80 classes"]["sparse_rcnn"][text]


def test_multiply_adds_of_a_proposal():
    products = 2 * C**2 * D + CELLS * C**2 + 2 * 8 * C**2 + 4 * C**2 + C * (K + 4)
    normed = 3 * C + CELLS * (D + C) + C + 4 * C
    activated = CELLS * (D + C) + C + 8 * C + 4 * C
    few, many = cost(SWIN, P), cost(SWIN, 2 * P)
    assert many.paper_flops - few.paper_flops == P * STAGES * (products + 2 * normed + activated)
    dynamic, attention = 2 * CELLS * C * D, 4 * C**2
    scores = 2 * C * ((2 * P) ** 2 - P**2)  # queries times keys and weights times values: of every proposal with every other
    assert many.flops - few.flops == STAGES * (P * (products + dynamic + attention + 5 * normed) + scores)


def test_printed_figures():
    resnet, swin = cost(RESNET), cost(SWIN)
    assert (round(resnet.params / 1e6), round(swin.params / 1e6)) == (106, 110)
    pinned = GOLDEN["paper's FLOPs, 80 classes, 800 x 1280"]["sparse_rcnn"]
    assert {RESNET: resnet.paper_flops, SWIN: swin.paper_flops} == pinned
    # mmdetection's counter prints 165.5 for the first, which rounds up. Figures with Swin have the attention products, as those
    # of the other detectors of Table 5: query times key and weights times values, in windows of 49 positions.
    assert resnet.paper_flops / 1e9 == pytest.approx(165.5, abs=0.005)
    stages = ((200, 320, 96, 2), (100, 160, 192, 2), (50, 80, 384, 6), (25, 40, 768, 2))  # height, width, channels, blocks
    windows = sum(2 * math.ceil(h / 7) * math.ceil(w / 7) * 49**2 * c * n for h, w, c, n in stages)
    assert round((swin.paper_flops + windows) / 1e9) == 172
