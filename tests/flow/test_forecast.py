"""A dry run says what a search will cost; the search that follows says what it did cost beside
it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.commands import Run

from nas.cli.forecast import cost_table
from nas.cli.tables import print_table
from nas.config.spec import SearchSpec, load_spec
from nas.errors import SpecError
from nas.planning.adaptation import adapt_to_data
from nas.reports.forecast import EpochTime, ForecastTotals, SearchForecast, Timing
from nas.search.budget import Budget
from nas.search.forecast.candidates import first_suggestions
from nas.search.forecast.forecast_cache import recall, remember
from nas.search.layout_sample import evenly_spaced, uniform_sample
from nas.search.open_search import open_search
from workers.resources import slots_of

TOTALS = ("epochs_per_trial", "train_s", "candidates_s", "wall_s", "cpu_hours", "gpu_hours")
SECONDS = 3600


@pytest.fixture
def words(digits: Path, tmp_path: Path) -> list[str]:
    return [
        "submit",
        "--data",
        str(digits),
        "--space",
        "tiny",
        "--detector",
        "fcos",
        "--image-size",
        "32",
        "--epochs",
        "2",
        "--trials",
        "2",
        "--no-baselines",
        "--local",
        "--storage",
        f"sqlite:///{tmp_path}/nas.db",
        "--output",
        str(tmp_path / "runs"),
    ]


def test_predicted_then_searched(
    nas: Run, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("nas.search.forecast.forecast.MEASURED", 2)
    code, out, _ = nas(*words, "--dry-run", "--json")
    cost = json.loads(out)["cost"]
    assert code == 0
    assert (cost["trials"], cost["baselines"], cost["replicates"]) == (2, 0, 0)
    assert cost["steps_per_epoch"] == 6  # 24 images in batches of 4
    assert cost["scored_images_per_epoch"] == 8
    assert all(cost[f"{name}_low"] == cost[f"{name}_high"] for name in TOTALS)  # no pruner
    assert 0 < cost["epoch_s_small"] <= cost["epoch_s_median"] <= cost["epoch_s_large"]
    assert 0 < cost["train_s_low"] < cost["candidates_s_low"] < cost["wall_s_low"]
    assert cost["cpu_hours_low"] == pytest.approx(
        cost["candidates_s_low"] * cost["cpus_per_trial"] / SECONDS
    )
    assert cost["gpu_hours_low"] == 0
    assert cost["candidates_per_gpu"] is None
    assert not (tmp_path / "nas.db").exists()

    nas(*words)
    storage = ("--storage", f"sqlite:///{tmp_path}/nas.db")
    known = json.loads(nas("status", "--json", *storage)[1])["nas_cost_predicted"]
    assert known == {
        name: value
        for name, value in cost.items()
        if name not in ("measured", "coefficients", "notes")
    }
    assert "Predicted for 2 trainings: " in nas("status", *storage)[1]
    assert nas("report", *storage, "--out", tmp_path / "report.html")[0] == 0
    assert "The 2 that have ended took" in (tmp_path / "report.html").read_text()


COST = SearchForecast(
    trials=8,
    baselines=9,
    replicates=6,
    device="H100",
    cpu="EPYC",
    cores=16,
    local=False,
    concurrent=2,
    cpus_per_trial=4,
    threads_per_trial=4,
    gpus_per_trial=0.5,
    candidates_per_gpu=2,
    measured_side_by_side=2,
    steps_per_epoch=6,
    scored_images_per_epoch=8,
    epochs_are_a_limit=True,
    small=EpochTime("A", 30.0),
    median=EpochTime("B", 300.0),
    large=EpochTime("C", 7200.0),
    candidate_s_spread=0.5,
    low=ForecastTotals(4.0, 3600.0, 36e3, 18e3, 40.0, 5.0),
    high=ForecastTotals(9.0, 7200.0, 72e3, 36e3, 80.0, 10.0),
    start_s=3.0,
    coefficients={"step_s": (0.0, 1e-12, 0.0)},
    measured=tuple(Timing(layout, 1, 1, 0.1, 0.2, 0.3, 0.4) for layout in "AAC"),
    measuring_s=42.0,
    notes=("not certain",),
)


def test_the_json_of_a_forecast_is_flat_with_units_and_ends_in_the_names():
    written = COST.to_dict()
    assert [name for name in written if name not in KEPT] == ["coefficients", "measured", "notes"]
    assert COST.summary_dict() == {name: written[name] for name in KEPT}
    assert (written["layout_large"], written["epoch_s_large"]) == ("C", 7200.0)
    assert (written["wall_s_low"], written["gpu_hours_high"]) == (18e3, 10.0)
    assert written["measured"][2] == {
        "layout": "C",
        "flops": 1,
        "memory_bytes": 1,
        "begin_s": 0.1,
        "step_s": 0.2,
        "score_s": 0.3,
        "keep_s": 0.4,
    }
    assert written["notes"] == ["not certain"]


KEPT = [
    *("trials", "baselines", "replicates", "device", "cpu", "cores", "local", "concurrent"),
    *("cpus_per_trial", "threads_per_trial", "gpus_per_trial", "candidates_per_gpu"),
    *("measured_side_by_side", "steps_per_epoch", "scored_images_per_epoch"),
    *("epochs_are_a_limit", "layout_small", "epoch_s_small", "layout_median", "epoch_s_median"),
    *("layout_large", "epoch_s_large", "candidate_s_spread"),
    *(f"{name}_{end}" for end in ("low", "high") for name in TOTALS),
    *("start_s", "measuring_s"),
]


def test_the_table(capsys: pytest.CaptureFixture[str]):
    print_table(cost_table(COST))
    said = capsys.readouterr().out
    for text in (
        "quickest 30 s (A), median 5.0 min (B), slowest 2.0 h (C)",
        "8, of at most 4 to 9 epochs each, 2 at once",
        "15 trainings: 9 of baselines, 6 again",
        "60 min to 2.0 h in all",
        "10 h to 20 h in all",
        "5 to 10 GPU-hours",
        "5.0 h to 10 h, and 3 s to start Ray",
        "2 layouts in 42 s on H100 (EPYC), 4 threads each",
        "not certain",
    ):
        assert text in said


def test_without_timing_nothing_is_measured(nas: Run, words: list[str]):
    code, out, _ = nas(*words, "--dry-run", "--no-timing", "--json")
    assert (code, json.loads(out)["cost"]) == (0, None)
    assert "What it will cost" not in nas(*words, "--dry-run", "--no-timing")[1]


def test_what_is_trained_beside_the_candidates_is_shown_and_counted(
    nas: Run, words: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("nas.search.forecast.forecast.MEASURED", 2)
    plain = json.loads(nas(*words, "--dry-run", "--json")[1])
    found = json.loads(nas(*words, "--baselines", "--replicates", "3", "--dry-run", "--json")[1])
    assert [each["name"] for each in found["baselines"]] == ["Swin-T", "ResNet-50", "C2-C2-T12-T4"]
    assert (found["cost"]["baselines"], found["cost"]["replicates"]) == (9, 4)
    assert found["cost"]["train_s_low"] > 3 * plain["cost"]["train_s_low"]
    assert "Swin-T" in nas(*words, "--baselines", "--dry-run", "--no-timing")[1]


def test_where_nothing_fits_there_is_no_cost(nas: Run, words: list[str]):
    code, out, _ = nas(*words, "--dry-run", "--budget", "1MiB", "--json")
    assert (code, json.loads(out)["cost"]) == (0, None)


def request(digits: Path, tmp_path: Path, **flags: object) -> SearchSpec:
    defaults = {
        "data.root": str(digits),
        "space": "tiny",
        "detector": "fcos",
        "recipe.image_size": 32,
        "search.trials": 4,
        "search.baselines": False,
        "storage": f"sqlite:///{tmp_path}/nas.db",
        "run.output": str(tmp_path / "runs"),
    }
    return load_spec(None, {**defaults, **flags})


def test_a_prediction_is_for_the_same_request_only(digits: Path, tmp_path: Path):
    spec, _, facts = adapt_to_data(request(digits, tmp_path, study="here"))
    remember(spec, facts, True, COST)
    elsewhere = request(digits, tmp_path / "other", study="there")
    assert recall(elsewhere, facts, True) == COST.summary_dict()
    assert recall(elsewhere, facts, False) is None
    assert recall(request(digits, tmp_path, **{"search.trials": 5}), facts, True) is None
    assert recall(spec, replace(facts, fingerprint="other"), True) is None


TRIED = ["T1-T1-T1-T1@24", "C1-C1-T1-T1@16", "C1-C1-C1-C1@16", "C1-C1-T2-T1@16"]


@pytest.mark.parametrize(
    "wanted",
    [
        {"search.sampler": "tpe"},
        {"search.sampler": "grid"},
        {"search.try": TRIED, "search.try_only": True},
    ],
)
def test_the_first_suggestions_are_those_of_the_search(
    digits: Path, tmp_path: Path, wanted: dict[str, object]
):
    wanted = {"search.try": TRIED[:1], "search.seed": 3, **wanted}
    spec, _, facts = adapt_to_data(request(digits, tmp_path, **wanted))
    first, candidates = first_suggestions(Budget(spec, facts))
    study, layouts = open_search(spec, facts), []
    for _ in range(4):
        assignment = study.ask()
        assert assignment
        layouts.append(assignment.layout)
    assert [each.layout for each in first] == layouts
    assert candidates == 4


def test_a_small_space_ends_the_search(digits: Path, tmp_path: Path):
    spec, _, facts = adapt_to_data(request(digits, tmp_path, **{"search.trials": 1000}))
    assert first_suggestions(Budget(spec, facts))[1] == len(spec.search_space())


def test_the_measured_layouts_span_the_space(digits: Path, tmp_path: Path):
    spec, _, facts = adapt_to_data(request(digits, tmp_path))
    sample = uniform_sample(Budget(spec, facts))
    chosen = [each.flops for each in evenly_spaced(sample, 5)]
    assert (chosen[0], chosen[-1]) == (
        min(each.flops for each in sample),
        max(each.flops for each in sample),
    )
    assert chosen == sorted(chosen)
    assert len(chosen) == 5
    assert evenly_spaced(sample[:2], 5) == sample[:2]


def test_where_candidates_run(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("workers.resources.gpu_count", lambda: 0)
    slots = slots_of(request(digits, tmp_path, **{"run.concurrent": 2}), 2**30, local=False)
    assert (slots.concurrent, slots.cpus, slots.threads, slots.side_by_side, slots.per_gpu) == (
        2,
        4,
        4,
        2,
        None,
    )
    with pytest.raises(SpecError, match=r"run\.cpus_per_trial"):
        slots_of(request(digits, tmp_path, **{"run.concurrent": 9}), 2**30, local=False)
    cluster = slots_of(
        request(digits, tmp_path, **{"run.concurrent": 64, "run.cluster": "http://head:8265"}),
        0,
        local=False,
    )
    assert (cluster.concurrent, cluster.side_by_side) == (64, 1)


def test_candidates_that_share_a_gpu(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    monkeypatch.setattr("workers.resources.gpu_count", lambda: 2)
    monkeypatch.setattr("workers.resources.smallest_card_bytes", lambda: 80 * 2**30)
    slots = slots_of(request(digits, tmp_path), 16 * 2**30, local=False)
    assert (slots.gpus, slots.per_gpu, slots.concurrent, slots.side_by_side) == (0.375, 2, 4, 2)
