"""A dry run says what a search will cost; the search that follows says what it did cost beside
it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.commands import Run

from nas.cli.forecast import cost_table, slots_of
from nas.cli.tables import print_table
from nas.config.spec import SearchSpec, load_spec
from nas.data.splits import adapt_to_data
from nas.errors import SpecError
from nas.search.budget import Budget
from nas.search.forecast.candidates import first_suggestions
from nas.search.forecast.forecast import recall, remember
from nas.search.layout_sample import spread, uniform_sample
from nas.search.search import Search

QUANTITIES = ("train_s", "candidates_s", "wall_s", "cpu_hours", "gpu_hours", "epochs_per_trial")
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
    assert all(cost[f"{name}_low"] == cost[f"{name}_high"] for name in QUANTITIES)  # no pruner
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


COST = {
    "trials": 8,
    "baselines": 9,
    "replicates": 6,
    "concurrent": 2,
    "threads_per_trial": 4,
    "gpus_per_trial": 0.5,
    "candidates_per_gpu": 2,
    "device": "H100",
    "cpu": "EPYC",
    "epochs_per_trial_low": 4.0,
    "epochs_per_trial_high": 9.0,
    "epochs_are_a_limit": True,
    "start_s": 3.0,
    "epoch_s_small": 30.0,
    "epoch_s_median": 300.0,
    "epoch_s_large": 7200.0,
    "layout_small": "A",
    "layout_median": "B",
    "layout_large": "C",
    "train_s_low": 3600.0,
    "train_s_high": 7200.0,
    "candidates_s_low": 36e3,
    "candidates_s_high": 72e3,
    "wall_s_low": 18e3,
    "wall_s_high": 36e3,
    "gpu_hours_low": 5.0,
    "gpu_hours_high": 10.0,
    "measuring_s": 42.0,
    "measured": [{"layout": "A"}, {"layout": "A"}, {"layout": "C"}],
    "notes": ["not certain"],
}


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
    remember(spec, facts, True, {"wall_s_low": 5.0, "measured": [1]})
    elsewhere = request(digits, tmp_path / "other", study="there")
    assert recall(elsewhere, facts, True) == {"wall_s_low": 5.0}
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
    study, layouts = Search(spec, facts), []
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
    chosen = [each.flops for each in spread(sample, 5)]
    assert (chosen[0], chosen[-1]) == (
        min(each.flops for each in sample),
        max(each.flops for each in sample),
    )
    assert chosen == sorted(chosen)
    assert len(chosen) == 5
    assert spread(sample[:2], 5) == sample[:2]


def test_where_candidates_run(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
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
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("workers.resources.smallest_card_bytes", lambda: 80 * 2**30)
    slots = slots_of(request(digits, tmp_path), 16 * 2**30, local=False)
    assert (slots.gpus, slots.per_gpu, slots.concurrent, slots.side_by_side) == (0.375, 2, 4, 2)
