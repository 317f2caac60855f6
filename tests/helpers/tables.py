"""Tables of trainings that nobody did: scores and seconds by rule, for tests of what replays them;
the programs around them.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from helpers.untrained import FACTS
from nas.config.spec import load_spec
from nas.reports import DatasetSummary
from search_spaces.layout import Layout
from workers.simulator.tabular_benchmark import RecordedRun, TabularBenchmark

PROGRAMS = Path(__file__).parents[2] / "benchmarks" / "tabular"
SMALL = {
    "name": "small",
    "stages": [{"kinds": ["C", "T"], "depths": [1]}] * 4,
    "channels": [16],
}  # 16 layouts
REQUEST = {
    "study": "cells",
    "data": {"root": "cells"},
    "space": "tiny",
    "recipe": {"epochs": 4, "warmup_steps": 0},
}


def run(
    layout: str, maps: tuple[float, ...], second_s: float = 10.0, seed: int = 0, **changes: Any
) -> RecordedRun:
    """A training that reports `maps`, one every `second_s`."""
    times = tuple(second_s * epoch for epoch in range(1, len(maps) + 1))
    made = RecordedRun(
        layout=layout,
        seed=seed,
        params=1000,
        flops=2000,
        memory_predicted_gib=0.1,
        fps=20.0,
        loss=(1.5,) * len(maps),
        lr=(0.1,) * len(maps),
        map=maps,
        train_s=tuple(0.5 * at_s for at_s in times),
        elapsed_s=times,
    )
    return dataclasses.replace(made, **changes)


def quality(layout: Layout) -> float:
    """Deeper and wider is better, 0 to 1."""
    return (sum(layout.depths) + layout.widths[0] / 8) / 16


def plain(layout: Layout) -> list[RecordedRun]:
    """One run, of as many seconds an epoch as it has blocks."""
    return [
        run(
            str(layout),
            tuple(quality(layout) * epoch / 4 for epoch in range(1, 5)),
            sum(layout.depths),
        )
    ]


def table_of(
    runs: Callable[[Layout], list[RecordedRun]] = plain,
    facts: DatasetSummary = FACTS,
    request: Mapping[str, Any] = REQUEST,
) -> TabularBenchmark:
    """Of every layout of the space."""
    spec = load_spec(request, {})
    sections = {
        name: spec.to_dict()[name]
        for name in ("space", "data", "detector", "recipe", "calibration")
    }
    return TabularBenchmark(
        {"made": "by a test"},
        sections,
        facts,
        "cpu",
        tuple(r for layout in spec.search_space() for r in runs(layout)),
    )


def spec_of(table: TabularBenchmark, tmp_path: Path, **flags: Any):
    """A search in the space of a table."""
    base = {"run.output": str(tmp_path / "runs"), "storage": f"sqlite:///{tmp_path}/nas.db"}
    return table.spec({"study": "cells", **base, **flags})


def program(name: str) -> ModuleType:
    """A benchmark of tables, which is no part of a package; its folder is to be in the path."""
    spec = importlib.util.spec_from_file_location(f"tabular_{name}", PROGRAMS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
