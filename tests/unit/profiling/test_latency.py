"""Latency of layouts: what is measured, what is added up, what is remembered."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nas.config.choices import LatencyDevice
from nas.errors import SpecError
from nas.export.onnx.export import OnnxModel, step_onnx
from nas.models.backbones import HybridBackbone, build_backbone
from nas.models.backbones.graph import Node
from nas.profiling.latency import LatencyMeter, latency_target
from nas.profiling.latency.targets import LatencyTarget, Shape, shortest_s
from search_spaces.layout import Layout

LAYOUTS = ("C1-C1-T2-T1@16", "T1-C2-T1-C1@8", "C1-T1-T1-T1@8+dense=true", "T2-T1-C1-T1@12+norm=gn")


def blocks(stage: Any) -> int:
    """Of a C stage, which is a sequence of them, or of a T stage."""
    return len(getattr(stage, "blocks", stage))


class Clock(LatencyTarget):
    """A step takes a second for each of its blocks, a whole backbone a tenth more."""

    def __init__(self, device: str = "a clock") -> None:
        self.device, self.asked = device, list[tuple[str, Shape]]()

    def describe(self) -> dict[str, str]:
        return {"device": self.device}

    def backbone_s(self, backbone: HybridBackbone, shape: Shape) -> float:
        self.asked.append(("whole", shape))
        return 1.1 * (1 + sum(map(blocks, backbone.stages)))

    def step_s(self, backbone: HybridBackbone, node: Node, shape: Shape) -> float:
        self.asked.append((node.name, shape))
        return 1.0 if node.kind == "stem" else float(blocks(backbone.stages[node.stage]))


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.parametrize("text", LAYOUTS)
def test_a_prediction_is_the_sum_of_the_steps(text: str):
    layout, clock = Layout.parse(text), Clock()
    meter = LatencyMeter(clock, (70, 101))
    assert meter.predicted_s(layout) == pytest.approx(1 + sum(layout.depths))
    assert meter.measured_s(layout) == pytest.approx(1.1 * (1 + sum(layout.depths)))
    backbone = build_backbone(layout)
    seen: dict[str, Shape] = {}
    for node in backbone.graph:  # shapes as they are when the network runs
        if node.kind in ("stem", "stage"):
            module = backbone.stem if node.kind == "stem" else backbone.stages[node.stage]
            module.register_forward_pre_hook(
                lambda _, given, name=node.name: seen.update({name: tuple(given[0].shape[1:])})
            )
    with torch.no_grad():
        backbone.eval()(torch.rand(1, 3, 70, 101))
    assert dict(clock.asked) == {**seen, "whole": (3, 70, 101)}


def test_a_step_is_measured_once_whatever_layout_has_it():
    clock = Clock()
    meter = LatencyMeter(clock, (64, 64))
    meter.predicted_s(Layout.parse("C1-C1-T2-T1@16"))
    names = ["stem", "stage_1", "stage_2", "stage_3", "stage_3", "stage_4"]
    assert [name for name, _ in clock.asked] == names  # of stage 3 one block, and three
    meter.predicted_s(Layout.parse("C1-C1-T9-T1@16"))
    assert len(clock.asked) == 6
    meter.predicted_s(Layout.parse("C1-C1-T2-C1@16"))
    assert [name for name, _ in clock.asked[6:]] == ["stage_4"]
    meter.predicted_s(Layout.parse("C1-C1-T2-T1@24"))
    assert len(clock.asked) == 13
    again = Clock()
    LatencyMeter(again, (64, 64)).predicted_s(Layout.parse("C1-C1-T3-T1@16"))
    assert again.asked == []  # read from disk
    for other in (LatencyMeter(Clock("another"), (64, 64)), LatencyMeter(Clock(), (64, 96))):
        other.predicted_s(Layout.parse("C1-C1-T3-T1@16"))
        assert len(other.target.asked) == 6


@pytest.mark.parametrize(
    "text", [LAYOUTS[-1], *(pytest.param(text, marks=pytest.mark.long) for text in LAYOUTS[:-1])]
)
def test_a_step_as_onnx_gives_what_the_step_gives(text: str):
    backbone = build_backbone(Layout.parse(text)).eval()
    for node in backbone.graph:
        if node.kind not in ("stem", "stage"):
            continue
        x = torch.rand(1, node.in_widths[0], 30, 45)
        (found,) = OnnxModel(step_onnx(backbone, node), threads=1)(x)
        with torch.no_grad():
            if node.kind == "stem":
                wanted = backbone.stem(x)
            else:
                rows = backbone.stages[node.stage](x).permute(0, 2, 3, 1)
                wanted = backbone.norms[node.stage](rows).permute(0, 3, 1, 2)
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def test_the_shortest_run_counts(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    taken = iter([9, 9, 3, 2, 5, *[4] * 20])  # two to warm up
    monkeypatch.setattr(
        "nas.profiling.latency.targets.time", SimpleNamespace(perf_counter=lambda: now[0])
    )

    def run() -> None:
        now[0] += next(taken)

    assert shortest_s(run) == 2


GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


@pytest.mark.parametrize(
    ("name", "device"), [("cpu", "one core"), pytest.param("gpu", "", marks=GPU)]
)
def test_the_target_of_this_machine(name: LatencyDevice, device: str):
    target = latency_target(name)
    assert device in target.describe()["device"]
    backbone = build_backbone(Layout.parse("C1-C1-C1-T1@8"))
    assert 0 < target.backbone_s(backbone, (3, 32, 32)) < 60


def test_without_a_gpu_there_is_no_latency_on_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SpecError, match="budget.latency_on must be cpu on a machine without a GPU"):
        latency_target("gpu")
