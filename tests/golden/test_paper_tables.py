"""The paper's tables beside our counts: Table 2 to every digit of an independent count, its
misprints by their arithmetic.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import get_args

import pytest

from nas.cli import main
from nas.config.choices import DetectorName
from nas.errors import SpecError
from nas.profiling.paper_tables import measured_memory, paper_rows

# Millions and billions, from an independent count of the design that reproduces Table 2.
COUNTED = {
    ("faster_rcnn", "T2-T2-T6-T2"): ("45.1513", "210.709"),
    ("faster_rcnn", "C2-C2-T6-T2"): ("44.0839", "186.307"),
    ("faster_rcnn", "C2-C2-T12-T4"): ("68.9267", "246.295"),
    ("fcos", "T2-T2-T6-T2"): ("35.7345", "211.563"),
    ("fcos", "C2-C2-T6-T2"): ("34.6671", "187.162"),
    ("fcos", "C2-C2-T12-T4"): ("59.5099", "247.150"),
}
# What the printed figures are off by, where that is a digit and not a design.
MISPRINTS = {
    ("faster_rcnn", "C2-C2-T6-T2"): (0, 2),
    ("fcos", "T2-T2-T6-T2"): (0, 0),
    ("fcos", "C2-C2-T6-T2"): (-10, 0),
    ("fcos", "C2-C2-T12-T4"): (-20, -20),
}


@pytest.fixture(scope="module")
def table_2() -> dict:
    return {(row["detector"], row["layout"]): row for row in paper_rows((2,))}


@pytest.mark.parametrize("row", COUNTED)
def test_parameters_and_flops_of_table_2(table_2: dict, row: tuple[str, str]):
    counted = table_2[row]["counted"]
    assert (f"{counted['params'] / 1e6:.4f}", f"{counted['paper_flops'] / 1e9:.3f}") == COUNTED[row]


@pytest.mark.parametrize("row", MISPRINTS)
def test_printed_figures_differ_by_whole_digits(table_2: dict, row: tuple[str, str]):
    deviation = table_2[row]["deviation"]
    # Half of the last printed digit, 0.01, and what rounding the deviation itself adds.
    assert deviation["params_m"] == pytest.approx(MISPRINTS[row][0], abs=0.0051)
    assert deviation["flops_g"] == pytest.approx(MISPRINTS[row][1], abs=0.0051)
    assert bool(table_2[row]["note"]) == any(MISPRINTS[row])


def test_the_exchanged_row_is_the_count_of_another(table_2: dict):
    printed = table_2["faster_rcnn", "T2-T2-T6-T2"]["printed"]
    other = table_2["faster_rcnn", "C2-C2-T12-T4"]["counted"]
    assert printed["params_m"] == round(other["params"] / 1e6, 2)
    assert printed["flops_g"] == round(other["paper_flops"] / 1e9, 1)


@pytest.fixture(scope="module")
def table_5() -> dict:
    return {(row["detector"], row["layout"]): row for row in paper_rows((5,))}


def test_rows_of_table_5_are_counted_where_the_detector_is_there(table_5: dict):
    assert len(table_5) == 12
    detectors = get_args(DetectorName)
    assert all(
        row["missing"] == (row["counted"] is None) == (row["detector"] not in detectors)
        for row in table_5.values()
    )


def test_atss_of_table_5(table_5: dict):
    # The independent count of the published networks: 32.295M and 205.30G with ResNet-50, 35.73M
    # and 211.56G with Swin-T, whose printed figure has the attention products as well: query times
    # key and weights times values in windows of 49 positions.
    resnet, swin = (table_5["atss", layout] for layout in ("C3-C4-C6-C3@256", "T2-T2-T6-T2"))
    counted = [
        (row["counted"]["params"] / 1e6, row["counted"]["paper_flops"] / 1e9)
        for row in (resnet, swin)
    ]
    assert counted == [
        pytest.approx((32.295, 205.30), abs=0.005),
        pytest.approx((35.73, 211.56), abs=0.005),
    ]
    stages = (
        (200, 320, 96, 2),
        (100, 160, 192, 2),
        (50, 80, 384, 6),
        (25, 40, 768, 2),
    )  # height, width, channels, blocks
    attention = (
        sum(2 * math.ceil(h / 7) * math.ceil(w / 7) * 49**2 * c * n for h, w, c, n in stages) / 1e9
    )
    assert attention == pytest.approx(3.11, abs=0.005)
    printed = [(row["printed"]["params_m"], row["printed"]["flops_g"]) for row in (resnet, swin)]
    assert printed == [(32, 205), (36, 215)]
    assert [
        (round(m), round(g)) for m, g in (counted[0], (counted[1][0], counted[1][1] + attention))
    ] == printed


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> str:
    monkeypatch.setattr(sys, "argv", ["nas", "paper-tables", *arguments])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert not ended.value.code
    return capsys.readouterr().out


def test_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], table_5: dict
):
    rows = json.loads(run(monkeypatch, capsys, "--table", "1", "--json"))
    assert [(row["trained"], row["roi_op"], row["printed"]["map"]) for row in rows[:2]] == [
        ("scratch", "pool", pytest.approx(0.266)),
        ("scratch", "align", pytest.approx(0.303)),
    ]
    markdown = run(monkeypatch, capsys, "--table", "5", "--markdown").splitlines()
    assert markdown[0] == "### Table 5: Other detectors"
    assert len({line.count("|") for line in markdown[2:] if line}) == 1
    assert sum("missing" in line for line in markdown) == sum(
        row["missing"] for row in table_5.values()
    )
    assert "Table 2: " in run(monkeypatch, capsys, "--table", "2")


def test_measured_memory_stands_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    paper = {
        "batch_shape": [4, 3, 800, 1344],
        "precision": "fp32",
        "checkpointing": "none",
        "measured_bytes": 12 * 2**30,
    }
    rows = [
        {"detector": "fcos", "layout": "C2-C2-T6-T2", **paper},
        {"detector": "fcos", "layout": "T2-T2-T6-T2", **paper, "precision": "bf16"},
    ]
    path = tmp_path / "memory.json"
    path.write_text(json.dumps({"rows": rows}))
    shown = json.loads(run(monkeypatch, capsys, "--table", "2", "--measured", str(path), "--json"))
    measured = {
        (row["detector"], row["layout"]): row["counted"]["memory_measured_gib"] for row in shown
    }
    assert measured.pop(("fcos", "C2-C2-T6-T2")) == 12
    assert set(measured.values()) == {None}
    path.write_text("[]")
    with pytest.raises(SpecError, match="is not what benchmarks/memory.py writes"):
        measured_memory(path)
    with pytest.raises(SpecError, match="cannot be read: No such file"):
        measured_memory(tmp_path / "nothing.json")
