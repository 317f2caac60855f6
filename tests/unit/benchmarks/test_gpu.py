"""The program for the day a GPU is at hand: its short form on the CPU, and its limits of time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[3] / "benchmarks" / "gpu.py"
QUICK = ("memory", "training", "shapes", "evaluation")
SLOW_PART = """
import sys, time
sys.path.insert(0, sys.argv.pop(1))
import gpu
def rows(short):
    yield {"first": 1}
    time.sleep(600)
gpu.PARTS = {
    "slow": gpu.Part(0.5, rows, str), "quick": gpu.Part(0.5, lambda short: iter([{"last": 2}]), str)
}
gpu.main()
"""


def run(tmp_path: Path, *words: str) -> dict[str, Any]:
    """What the program writes."""
    out = tmp_path / "gpu.json"
    done = subprocess.run(
        [sys.executable, *words, "--short", "--out", str(out)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


@pytest.mark.parametrize(
    "parts", [QUICK, pytest.param(("search",), marks=pytest.mark.long)], ids=("quick", "search")
)
def test_short_form(tmp_path: Path, parts: tuple[str, ...]):
    found = run(tmp_path, str(PROGRAM), "--parts", *parts)
    assert found["out_of_time"] == []
    rows = found["parts"]
    assert [*rows] == [*parts]
    if "search" in rows:
        assert [row["state"] for row in rows["search"]] == ["COMPLETE"] * 4
        return
    assert abs(rows["memory"][0]["error"]) < 0.01
    networks = {row["network"]: row for row in rows["training"]}
    assert networks["ours"]["first_loss"] == pytest.approx(
        networks["torchvision"]["first_loss"], rel=1e-3
    )
    assert rows["shapes"] == []  # the CPU's allocator keeps nothing
    assert rows["evaluation"][0]["images_per_s"] > 0


def test_a_part_without_time_keeps_its_rows_and_leaves_the_others_theirs(tmp_path: Path):
    script = tmp_path / "slow.py"
    script.write_text(SLOW_PART)
    found = run(tmp_path, str(script), str(PROGRAM.parent), "--minutes", "0.1")
    assert found["out_of_time"] == ["slow"]
    assert found["parts"] == {"slow": [{"first": 1}], "quick": [{"last": 2}]}
