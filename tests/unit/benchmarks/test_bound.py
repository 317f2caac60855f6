"""What bounds searches on a table: predictions of layouts from others, regret of choosing by single
runs. And the figure.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.tables import PROGRAMS, REQUEST, SMALL, program, run, table_of

from search_spaces.layout import Layout


@pytest.fixture(autouse=True)
def _as_a_script(monkeypatch: pytest.MonkeyPatch):
    """Python puts a script's folder in front of the path."""
    monkeypatch.syspath_prepend(PROGRAMS)


def test_predictions_without_a_row_are_those_of_fits_without_it():
    draw = np.random.default_rng(0)
    x = np.column_stack([np.ones(12), draw.integers(0, 2, (12, 4))])
    y, weights = draw.normal(size=12), draw.integers(1, 4, 12).astype(float)
    found = program("bound").left_out(x, y, weights, penalty=0.7)
    for row in range(12):
        others = np.arange(12) != row
        # Weighted ridge as ordinary least squares: rows scaled by their weights, the penalty as
        # rows of its own.
        scaled = np.sqrt(weights[others])[:, None] * x[others]
        stacked = np.vstack([scaled, np.sqrt(0.7) * np.eye(5)[1:]])
        target = np.concatenate([np.sqrt(weights[others]) * y[others], np.zeros(4)])
        assert found[row] == pytest.approx(x[row] @ np.linalg.lstsq(stacked, target, rcond=None)[0])


def additive(layout: Layout) -> float:
    """A score that is the sum of what the parts of a layout bring."""
    return 0.1 + sum(
        0.01 * (place + 1) for place, stage in enumerate(layout.stages) if stage.kind == "T"
    )


def test_what_is_additive_is_predicted_and_trained_first():
    bound = program("bound")
    space = {
        "name": "many",
        "stages": [{"kinds": ["C", "T"], "depths": [1, 2]}, *SMALL["stages"][1:]],
        "channels": [16, 24],
    }
    draw = np.random.default_rng(0)

    def noisy(layout: Layout):
        return [
            run(str(layout), (additive(layout) + float(draw.normal(0, 0.005)),), seed=seed)
            for seed in range(3)
        ]

    table = table_of(noisy, request={**REQUEST, "space": space})
    found = bound.report(table, seeds=5)
    assert 0.9 < found["r2_left_out"] < 1
    assert found["spearman_left_out"] > 0.9
    # Between layouts 0.01^2 + ... + 0.04^2 by 1/4, noise of a mean 0.005^2 / 3.
    assert found["r2_ceiling"] == pytest.approx(
        1 / (1 + 0.005**2 / 3 / (30 * 0.01**2 / 4)), abs=0.01
    )
    assert {Layout.parse(name).pattern for name in bound.informed_order(table)[:4]} == {"T-T-T-T"}


def test_regrets_of_choosing_by_single_runs():
    # Means 0.5, 0.4, 0.2; the run of the third that seed 1 is shown looks best.
    scores = {
        "T1-T1-T1-T1@16": (0.5, 0.5),
        "T1-T1-T1-C1@16": (0.4, 0.4),
        "T1-T1-C1-T1@16": (-0.2, 0.6),
    }

    def some(layout: Layout):
        return [
            run(str(layout), (score,), seed=seed)
            for seed, score in enumerate(scores.get(str(layout), (0.0, 0.0)))
        ]

    table = table_of(some, request={**REQUEST, "space": SMALL})
    order = ["T1-T1-T1-C1@16", "T1-T1-T1-T1@16", "T1-T1-C1-T1@16"]
    assert program("bound").regrets(table, order, seeds=1) == pytest.approx([0.1, 0.0, 0.0])
    assert program("bound").regrets(table, order, seeds=2) == pytest.approx(
        [0.1, 0.0, 0.15]
    )  # the median of 0 and 0.3
    assert (
        program("bound").floor_again(table, seeds=2) == 0
    )  # the other run of the third tells it apart


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, suffix: str
):
    def compared(sampler: str, pruner: str, regret: float) -> dict:
        curves = {
            f"regret_{name}": [regret] * 50
            for name in ("median", "quarter", "three_quarters", "again_median")
        }
        return {
            "sampler": sampler,
            "pruner": pruner,
            "trials": 9.0,
            "pruned": 1.0,
            "first_within_noise_share": None,
            **curves,
        }

    rows = [
        compared("random", "none", 0.02),
        compared("tpe", "none", 0.005),
        compared("informed", "none", 0.0),
    ]
    rows += [compared("tpe", "median@cost", 0.01)]
    found = {"rows": rows, "shares": [each / 200 for each in range(1, 51)], "total_s": 1000.0}
    (tmp_path / "search.json").write_text(json.dumps(found))
    out = tmp_path / "figures" / f"search.{suffix}"
    monkeypatch.setattr(sys, "argv", ["plot.py", str(tmp_path / "search.json"), "--out", str(out)])
    program("plot").main()
    assert 1000 < out.stat().st_size < 150_000
    shown = capsys.readouterr().out.splitlines()
    assert shown[2] == "| random | none |" + " 2.00 (1.00) |" * 8
    assert shown[3].startswith("| tpe | none | 0.50 (0.25) |")
    assert shown[5].startswith("| tpe | median@cost | 1.00 (0.50) |")
    if suffix == "svg":
        first = out.read_bytes()
        program("plot").main()
        assert out.read_bytes() == first  # the same figure is the same file
