"""The programs around tables of trainings: building one, its noise, searches compared on it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.tables import PROGRAMS, REQUEST, SMALL, plain, program, run, table_of

from nas.errors import StudyError
from search_spaces.layout import Layout
from workers.simulator.tabular_benchmark import TabularBenchmark


@pytest.fixture(autouse=True)
def _as_a_script(monkeypatch: pytest.MonkeyPatch):
    """Python puts a script's folder in front of the path."""
    monkeypatch.syspath_prepend(PROGRAMS)


def test_variances_are_those_that_made_the_numbers():
    draw = np.random.default_rng(0)
    estimates = []
    for _ in range(200):
        truth = draw.normal(0.3, 0.04, 60)
        groups = [
            list(mean + draw.normal(0, 0.01, 3 if index % 3 == 0 else 1))
            for index, mean in enumerate(truth)
        ]
        estimates.append(program("noise").variance_parts(groups))
    within, between = np.mean(estimates, axis=0)
    assert within == pytest.approx(0.01**2, rel=0.03)
    assert between == pytest.approx(0.04**2, rel=0.03)


def test_balanced_variances_by_hand():
    # Means 1 and 3, each from two values at a distance of 1 from it: within 2 (one degree of
    # freedom each), mean square between 2 * (1 + 1) = 4, hence (4 - 2) / 2 = 1.
    assert program("noise").variance_parts([[0, 2], [2, 4]]) == (2, 1)


def test_noise_of_a_table():
    def noisy(layout: Layout):
        """The best two are 0.01 apart, all others far below; seeds 0.02 apart where there are
        two.
        """
        best = {"C1-C1-C1-C1@16": 0.5, "C1-C1-C1-T1@16": 0.49}.get(str(layout), 0.1)
        seeds = (0, 1) if str(layout).endswith("T1@16") else (0,)
        return [
            run(str(layout), (best / 2, best + 0.02 * seed - 0.01 * (len(seeds) - 1)), seed=seed)
            for seed in seeds
        ]

    found = program("noise").report(table_of(noisy))
    assert found["seed_deviation"] == pytest.approx(
        0.02 / 2**0.5, abs=1e-4
    )  # of two values 0.02 apart
    assert (found["best"], found["seeds_of_best"], found["within_noise_of_best"]) == (
        "C1-C1-C1-C1@16",
        1,
        1,
    )
    assert (found["layouts"], found["failed"]) == (240, 0)
    assert found["patterns"]["C-C-C-C"] == {
        "layouts": 48,
        "map_mean": round((0.5 + 47 * 0.1) / 48, 4),
        "map_max": 0.5,
    }
    assert found["epochs"][-1]["tau"] == 1


def test_a_training_that_failed_counts_nothing():
    def half(layout: Layout):
        if layout.depths[0] == 2:
            return plain(layout) * 2
        return [run(str(layout), (0.1,), fail_reason="NonFiniteLoss: x", elapsed_s=(1.0, 2.0))]

    found = program("noise").report(table_of(half))
    assert found["failed"] == 120
    assert found["map_min"] == 0


def test_without_a_second_seed_nothing_is_said_of_noise():
    with pytest.raises(StudyError, match="no layout of the table has several seeds"):
        program("noise").report(table_of())


BUILD = """
data: {}
space:
  name: two
  stages:
    - {kinds: [C], depths: [1, 2]}
    - {kinds: [C], depths: [1]}
    - {kinds: [T], depths: [1]}
    - {kinds: [T], depths: [1]}
  channels: [16]
detector: {name: fcos, channels: 64}
recipe: {name: tiny, epochs: 2, image_size: 64, warmup_steps: 1}
"""


@pytest.mark.long
def test_a_build_that_is_killed_goes_on(tmp_path: Path, digits: Path):
    (tmp_path / "spec.yaml").write_text(BUILD)
    raw, out = tmp_path / "raw", tmp_path / "table.json"
    command = [
        sys.executable,
        str(PROGRAMS / "build.py"),
        "--data",
        str(digits),
        "--spec",
        str(tmp_path / "spec.yaml"),
    ]
    command += ["--raw", str(raw), "--out", str(out)]
    building = subprocess.Popen(
        command, start_new_session=True, cwd=PROGRAMS.parent.parent, env=environment()
    )
    while building.poll() is None and len(runs(raw)) < 2:
        time.sleep(0.02)
    os.kill(building.pid, signal.SIGKILL)
    building.wait()
    before = {path.name: path.stat().st_mtime_ns for path in runs(raw)}
    assert len(before) >= 2
    assert not out.exists()

    again = subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        cwd=PROGRAMS.parent.parent,
        env=environment(),
    )
    assert len(again.stdout.splitlines()) == 4 - len(
        before
    )  # two layouts, one of them with three seeds
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in runs(raw)}.items()
    table = TabularBenchmark.read(out)
    assert [len(found) for found in table.by_layout.values()] in ([1, 3], [3, 1])
    assert str(tmp_path) not in out.read_text()
    assert table.request["data"]["root"] == digits.name
    for trained in table.runs:
        assert len(trained.map) == 2
        assert 0 < trained.train_s[0] < trained.elapsed_s[0] < trained.elapsed_s[1]
    assert json.loads(next(iter(runs(raw))).read_text())["threads"] == 1

    (tmp_path / "spec.yaml").write_text(BUILD.replace("epochs: 2", "epochs: 3"))
    refused = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=PROGRAMS.parent.parent,
        env=environment(),
        check=False,
    )
    assert refused.returncode == 2
    assert "has runs of another request" in refused.stderr
    assert "Traceback" not in refused.stderr


def runs(raw: Path) -> list[Path]:
    return list(raw.glob("*-*.json"))


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(PROGRAMS.parent.parent), "OMP_NUM_THREADS": "1"}


def test_shares_divide_the_runs(tmp_path: Path, digits: Path):
    build = program("build")
    (tmp_path / "spec.yaml").write_text(BUILD)
    opened = build.Build.open(tmp_path / "spec.yaml", digits, tmp_path / "raw")
    everything = opened.missing((1, 1))
    assert [seed for _, seed in build.planned(opened.spec, every=1)] == [0, 1, 2, 0, 1, 2]
    halves = [opened.missing((1, 2)), opened.missing((2, 2))]
    assert sorted(map(str, everything)) == sorted(map(str, halves[0] + halves[1]))
    assert [seed for _, seed in everything] == [0, 1, 2, 0]
    opened.path(*everything[0]).write_text("{}")
    assert opened.missing((1, 1)) == everything[1:]


def searched(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> str:
    """What a comparison prints."""
    monkeypatch.setattr(sys, "argv", ["compare.py", *arguments])
    program("compare").main()
    return capsys.readouterr().out


def test_searches_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def exact(layout: Layout):
        """Every layout has a score of its own; two runs of each, alike, so that nothing is within
        noise of the best.
        """
        score = 0.1 + int(layout.layout_id, 16) % 10_000 / 20_000
        return [run(str(layout), (score / 2, score), 5.0, seed=seed) for seed in (0, 1)]

    table = table_of(exact, request={**REQUEST, "space": SMALL})
    table.write(tmp_path / "table.json")
    common = [
        str(tmp_path / "table.json"),
        "--out",
        str(tmp_path / "out.json"),
        "--seeds",
        "3",
        "--workers",
        "2",
        "--share",
        "1",
    ]
    searched(capsys, monkeypatch, *common, "--samplers", "random", "--pruners", "none")
    shown = searched(
        capsys,
        monkeypatch,
        *common,
        "--samplers",
        "tpe",
        "informed",
        "--pruners",
        "median",
        "median@cost",
    )
    kinds = [["random", "none"], ["tpe", "median"], ["tpe", "median@cost"], ["informed", "none"]]
    assert [
        line.split(" | ")[:2]
        for line in shown.replace("| ", "", 1).replace("\n| ", "\n").splitlines()[2:]
    ] == kinds
    written = json.loads((tmp_path / "out.json").read_text())
    random, tpe, at_cost, informed = written["rows"]
    assert written["total_s"] == 16 * 10
    assert written["layouts_within_noise"] == 1
    assert random["regret_median"] == sorted(random["regret_median"], reverse=True)
    assert (random["regret_mean"][-1], random["within_noise"][-1], random["trials"]) == (
        0,
        1,
        16,
    )  # everything was trained
    assert (
        random["regret_median"][0] == written["map_best_mean"]
    )  # nothing was, after 2 % of the work
    assert tpe["pruned"] > 0
    assert at_cost["pruned"] > 0
    assert (informed["regret_mean"][-1], informed["trials"]) == (0, 16)

    with pytest.raises(SystemExit) as refused:
        searched(capsys, monkeypatch, *common, "--seeds", "4")
    assert refused.value.code == 2
    assert "rows with other seeds" in capsys.readouterr().err


def test_a_pruner_at_equal_cost_and_an_order_known_beforehand():
    table = table_of(request={**REQUEST, "space": SMALL})
    settings = [
        program("compare").settings(table, *kind)
        for kind in (("tpe", "median@cost"), ("gp", "hyperband"))
    ]
    assert settings[0] == {
        "search.sampler": "tpe",
        "search.pruner": "median",
        "search.prune_at": "cost",
    }
    assert settings[1] == {
        "search.sampler": "gp",
        "search.pruner": "hyperband",
        "search.prune_at": "epochs",
    }
    informed = program("compare").settings(table, "informed", "none")
    assert informed["search.try_only"]
    assert sorted(informed["search.try"]) == sorted(table.by_layout)


def test_the_answer_of_a_search_at_a_time():
    at = program("compare").at
    found = [(10.0, "a"), (30.0, "b")]
    assert [at(found, at_s) for at_s in (0, 9.9, 10, 29, 30, 99)] == [
        None,
        None,
        "a",
        "a",
        "b",
        "b",
    ]
