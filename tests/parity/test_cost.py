"""Multiply-adds beside fvcore's own, operation by operation."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.cost import count_cost
from nas.detectors import Detector, build_detector
from nas.spec import DetectorSpec
from search_spaces.layout import Layout

flop_count = pytest.importorskip("fvcore.nn.flop_count")
SIZE = (128, 160)


class Outputs(nn.Module):
    """A detector without its losses and its selection of boxes, as fvcore's tracer wants it."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.detector.head(list(self.detector.backbone(images).values())).values())


def attention(inputs: list[Any], outputs: list[Any]) -> int:
    """The handler that fvcore lacks: scores and their product with the values."""
    query, key = (tensor.type().sizes() for tensor in inputs[:2])
    return 2 * math.prod(query) * key[-2]


@pytest.mark.filterwarnings("ignore")  # of the tracer
@pytest.mark.parametrize("text", ["C1-C1-T2-T1@32+norm=gn", "C3-C4-C6-C3@64", "C1-T1-T2-C1@32", "T1-T1-T2-T1@32"])
def test_flops_are_fvcores(text: str):
    layout, spec = Layout.parse(text), DetectorSpec(name="fcos")
    detector = build_detector(layout, spec, 8).eval()
    analysis = flop_count.FlopCountAnalysis(Outputs(detector), torch.rand(1, 3, *SIZE))
    analysis.set_op_handle("aten::scaled_dot_product_attention", attention)
    analysis.unsupported_ops_warnings(False).tracer_warnings("none")
    # FCOS does not use the first map; its norm, which runs all the same, is none that fvcore's tracer sees.
    unused = 5 * layout.widths[0] * math.prod(SIZE) // 16 if text.startswith("T") else 0
    assert count_cost(layout, spec, 8, SIZE).flops == analysis.total() + unused
