"""The wiring of a backbone, against what the paper's figures show and against itself."""

from __future__ import annotations

import pytest
import torch

from nas.models.backbones import build_backbone, layout_graph
from nas.models.backbones.graph import IMAGES, backbone_graph
from search_spaces.layout import Layout

WIDTHS = (16, 32, 64, 128)


def wires(*, dense: bool) -> dict[str, tuple[str, ...]]:
    return {node.name: node.inputs for node in backbone_graph(WIDTHS, 8, dense=dense)}


def test_each_stage_is_given_the_stage_before_it():
    assert wires(dense=False) == {
        "stem": (IMAGES,),
        "stage_1": ("stem",),
        "stage_1/norm": ("stage_1",),
        "stage_2": ("stage_1",),
        "stage_2/norm": ("stage_2",),
        "stage_3": ("stage_2",),
        "stage_3/norm": ("stage_3",),
        "stage_4": ("stage_3",),
        "stage_4/norm": ("stage_4",),
    }


def test_a_dense_backbone_joins_what_each_stage_from_the_third_on_is_given():
    joined = {"stage_2/join": ("stage_2", "stage_1"), "stage_3/join": ("stage_3", "stage_2/join")}
    ends = {"stage_3": ("stage_2/join",), "stage_4": ("stage_3/join",)}
    assert wires(dense=True) == wires(dense=False) | joined | ends
    widths = {
        node.name: (node.in_widths, node.width) for node in backbone_graph(WIDTHS, 8, dense=True)
    }
    assert widths["stage_2/join"] == ((32, 16), 48)
    assert widths["stage_3/join"] == ((64, 48), 112)
    assert widths["stage_4"] == ((112,), 128)


@pytest.mark.parametrize("dense", [False, True])
def test_values_are_there_until_they_are_released_and_only_the_maps_are_left(dense: bool):
    there = {IMAGES}
    for node in backbone_graph(WIDTHS, 8, dense=dense):
        assert there.issuperset(node.inputs)
        there.add(node.name)
        there -= set(node.releases)
    assert there == {IMAGES, *(f"stage_{number}/norm" for number in range(1, 5))}


@pytest.mark.parametrize("text", ["C1-T1-C1-T1@16+dense=true", "T1-C1-C1-T1@16", "C1-C1-C1-C1@24"])
def test_a_network_has_the_widths_and_strides_that_its_graph_says(text: str):
    layout = Layout.parse(text)
    backbone = build_backbone(layout).eval()
    assert backbone.graph == layout_graph(layout)
    values = {IMAGES: torch.rand(1, 3, 64, 96)}
    for node in backbone.graph:
        inputs = [values[name] for name in node.inputs]
        assert [x.shape[1] for x in inputs] == list(node.in_widths)
        parts = {
            "stem": backbone.stem,
            "stage": backbone.stages[node.stage],
            "norm": torch.nn.Identity(),
            "join": backbone.join,
        }
        values[node.name] = parts[node.kind](*inputs)
        assert values[node.name].shape[1] == node.width
        assert values[node.name].shape[2] * node.stride == inputs[0].shape[2]
