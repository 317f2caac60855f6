"""Multiply-adds beside fvcore's own, operation by operation."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.config.sections import DetectorSpec
from nas.models.backbones import build_backbone
from nas.models.detectors import Detector, build_detector
from nas.profiling.flops import BATCH, count_cost, count_network
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
@pytest.mark.parametrize(
    "text", ["C1-C1-T2-T1@32+norm=gn", "C3-C4-C6-C3@64", "C1-T1-T2-C1@32", "T1-T1-T2-T1@32"]
)
def test_flops_are_fvcores(text: str):
    layout, spec = Layout.parse(text), DetectorSpec(name="fcos")
    detector = build_detector(layout, spec, 8).eval()
    analysis = flop_count.FlopCountAnalysis(Outputs(detector), torch.rand(1, 3, *SIZE))
    analysis.set_op_handle("aten::scaled_dot_product_attention", attention)
    analysis.unsupported_ops_warnings(False).tracer_warnings("none")
    # FCOS does not use the first map; its norm, which runs all the same, is none that fvcore's
    # tracer sees.
    unused = 5 * layout.widths[0] * math.prod(SIZE) // 16 if text.startswith("T") else 0
    assert count_cost(layout, spec, 8, SIZE).flops == analysis.total() + unused


PIECES = [
    "C3-C1-T4-T2@16",
    "T2-C3-C2-T3@32+window=5",
    "C1-C2-C5-C3@16+norm=gn",
    "T4-T1-T3-T5@32+stem=resnet+head_dim=24",
    "C2-C3-C1-T2@32+stem=patch",
]


@pytest.mark.parametrize(
    "detector", ["fcos", "faster_rcnn", "reppoints_v2", "cascade_mask_rcnn", "sparse_rcnn"]
)
@pytest.mark.parametrize("text", PIECES)
def test_pieces_add_up_to_the_whole(text: str, detector: str):
    layout, spec = Layout.parse(text), DetectorSpec(name=detector, channels=64)
    cost = count_cost(layout, spec, 3, SIZE)
    with torch.device("meta"):
        network = build_detector(layout, spec, 3).eval()
        images = torch.empty(BATCH, 3, *SIZE)
    whole, _ = count_network(
        network, lambda: network.heads_forward(list(network.backbone(images).values()))
    )
    assert (cost.params, cost.flops, cost.paper_flops) == tuple(whole)
    assert cost.backbone_params == sum(
        parameter.numel() for parameter in build_backbone(layout).parameters()
    )


def test_a_single_position_is_counted_too():
    """One image of 32 x 32 pixels leaves one value in a channel group, which group norm refuses to
    normalise.
    """
    detector, size = DetectorSpec(name="fcos", channels=32), (32, 32)
    by_group, by_batch = (
        count_cost(Layout.parse(f"C1-C1-C1-C1@16+norm={norm}"), detector, 3, size)
        for norm in ("gn", "bn")
    )
    elements = []
    network = build_backbone(Layout.parse("C1-C1-C1-C1@16")).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(lambda _, __, out: elements.append(out.numel()))
    network(torch.zeros(1, 3, *size))
    assert by_group.flops - by_batch.flops == (5 - 2) * sum(elements)
