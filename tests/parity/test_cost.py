"""Multiply-adds beside fvcore's own, operation by operation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nas.config.sections import DetectorSpec
from nas.models.backbones import build_backbone
from nas.models.detectors import DETECTORS, build_detector
from nas.profiling.flop_counter import BATCH, count_network
from nas.profiling.flops import count_cost
from nas.profiling.module_costs import ModuleCosts
from search_spaces.layout import Layout

SIZE = (128, 160)


@pytest.mark.filterwarnings("ignore")  # of the tracer
@pytest.mark.parametrize(
    "text", ["C1-C1-T2-T1@32+norm=gn", "C3-C4-C6-C3@64", "C1-T1-T2-C1@32", "T1-T1-T2-T1@32"]
)
def test_flops_are_fvcores(text: str):
    layout, spec = Layout.parse(text), DetectorSpec(name="fcos")
    assert count_cost(layout, spec, 8, SIZE).flops == ModuleCosts(layout, spec, 8, SIZE).flops


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", DETECTORS)
def test_modules_add_up_to_the_whole(name: Any):
    layout = Layout.parse("T1-C1-T1-T1@16+head_dim=8")
    spec = DetectorSpec(name=name, channels=32, hidden=32, proposals=20)
    counted, cost = ModuleCosts(layout, spec, 3, SIZE), count_cost(layout, spec, 3, SIZE)
    rows = {row.module: row for row in counted.rows()}
    assert (rows[""].params, rows[""].flops) == (cost.params, cost.flops)
    assert rows["backbone.backbone"].params == cost.backbone_params
    parts = [row for name, row in rows.items() if name and "." not in name]
    assert sum(row.flops for row in parts) == cost.flops
    assert sum(row.activations for row in parts) == rows[""].activations > 0
    assert "backbone.backbone.stages" in counted.table()


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
