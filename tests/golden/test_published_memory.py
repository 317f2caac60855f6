"""Predicted memory beside figures that others measured on GPUs (sources in the file)."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
POINTS: list[dict[str, Any]] = json.loads((HERE / "published_memory.json").read_text())["points"]
PROGRAM = HERE.parent.parent / "benchmarks" / "published_memory.py"


@pytest.fixture(scope="module")
def program() -> dict[str, Any]:
    return runpy.run_path(str(PROGRAM))


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point["name"])
def test_published_figures_within_3_per_cent(program: dict[str, Any], point: dict[str, Any]):
    assert program["peak_mib"](point) == pytest.approx(1000 * point["published_gb"], rel=0.03)


@pytest.mark.parametrize(
    ("change", "least_mib"),
    [
        ({"ddp_buckets": False}, -150),  # 41 million trained parameters: 157
        ({"boxes_in_largest_image": 1}, -100),
        ({"images_per_gpu": 4}, 1500),
        ({"optimizer": "adamw"}, 150),
    ],
)
def test_settings_count(program: dict[str, Any], change: dict[str, Any], least_mib: float):
    before, after = (program["peak_mib"](POINTS[0] | each) for each in ({}, change))
    moved = after - before
    assert moved > least_mib if least_mib > 0 else moved < least_mib


def test_an_unknown_backbone_is_refused(program: dict[str, Any]):
    with pytest.raises(SystemExit, match="backbone must be one of ResNet-50"):
        program["peak_mib"](POINTS[0] | {"backbone": "VGG-16"})
