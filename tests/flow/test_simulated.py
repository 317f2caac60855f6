"""A search in earnest and its replay: every layout of a small space is trained once, then searched
by all backends.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nas.config.spec import load_spec
from nas.search.search import Search
from workers.driver import run_search
from workers.simulator.backend import simulate
from workers.simulator.tabular_benchmark import TabularBenchmark

BUILD = Path(__file__).parent.parent.parent / "benchmarks" / "tabular" / "build.py"
REQUEST = {
    "space": {
        "name": "eight",
        "channels": [4, 16],
        "conditions": ["C never after T"],
        "stages": [{"kinds": ["C"], "depths": [1]}, *[{"kinds": ["C", "T"], "depths": [1]}] * 3],
    },
    "detector": {"name": "fcos", "channels": 64},
    "recipe": {"name": "tiny", "epochs": 3, "image_size": 64, "warmup_steps": 5},
    "data": {"train_fraction": 0.3},
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, bccd: Path) -> TabularBenchmark:
    folder = tmp_path_factory.mktemp("table")
    (folder / "spec.yaml").write_text(json.dumps(REQUEST))  # YAML without aliases
    arguments = [
        "--data",
        bccd,
        "--spec",
        folder / "spec.yaml",
        "--raw",
        folder / "raw",
        "--out",
        folder / "table.json",
    ]
    subprocess.run([sys.executable, BUILD, *arguments, "--every", "100"], check=True)
    return TabularBenchmark.read(folder / "table.json")


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # Ray's own
@pytest.mark.parametrize("backend", ["local", "ray"])
def test_a_replay_suggests_and_ends_as_the_search_in_earnest(
    tmp_path: Path, bccd: Path, table: TabularBenchmark, backend: str
):
    if backend == "ray":
        pytest.importorskip("ray")
    flags = {
        "data.root": str(bccd),
        "study": "cells",
        "storage": f"sqlite:///{tmp_path}/nas.db",
        "run.output": str(tmp_path / "runs"),
        "run.concurrent": 1,
        "run.cpus_per_trial": 1,
        "search.trials": 8,
        "search.baselines": False,
        "search.sampler": "tpe",
        "search.pruner": "median",
    }
    earnest = run_search(load_spec(REQUEST, flags), local=backend == "local")
    replay = simulate(load_spec(REQUEST, flags), table, workers=1).search
    assert outcome(earnest) == outcome(replay)
    assert len({state for _, state, _ in outcome(replay)}) == 2  # some were pruned
    for trained, replayed in zip(earnest.study.trials, replay.study.trials, strict=True):
        assert trained.user_attrs["map"] == pytest.approx(
            replayed.user_attrs["map"], abs=5e-3
        )  # sums in another order


def outcome(study: Search) -> list[tuple[str, str, int]]:
    """Layout, state and epochs of each trial."""
    return [
        (t.user_attrs["layout"], t.state.name, len(t.intermediate_values))
        for t in study.study.trials
    ]
