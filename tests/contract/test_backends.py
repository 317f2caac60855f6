"""Both backends, Ray Tune's workers and this process, run the same search in the same way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.trial import TrialState

from nas import attributes
from nas.errors import OutOfMemory, SpecError
from nas.events import Event
from nas.records import EpochReport
from nas.results import leaderboard
from nas.spec import SearchSpec, load_spec
from nas.study import SearchStudy
from nas.training.run import CHECKPOINT, WEIGHTS
from nas.units import GIB
from workers.job import run_job
from workers.run import Watcher, run_search


def spec(tmp_path: Path, digits: Path, **flags: object) -> SearchSpec:
    base = {
        "data.root": str(digits), "space": "tiny", "storage": f"sqlite:///{tmp_path}/nas.db", "detector.name": "fcos",
        "run.output": str(tmp_path / "runs"), "recipe.epochs": 2, "recipe.image_size": 32, "search.trials": 3,
        "search.sampler": "random", "run.concurrent": 2, "search.try": ["C1-C1-T2-T1@16"], "data.test": "val",
    }  # fmt: skip
    return load_spec(None, {**base, **flags})


def search(request: SearchSpec, local: bool) -> tuple[SearchStudy, list[Event]]:
    events: list[Event] = []
    return run_search(request, Watcher(on_event=events.append), local=local), events


@pytest.fixture(params=["local", "ray"])
def local(request: pytest.FixtureRequest) -> bool:
    if request.param == "ray":
        pytest.importorskip("ray")
    return request.param == "local"


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_search_and_its_continuation(tmp_path: Path, digits: Path, local: bool):
    study, events = search(spec(tmp_path, digits), local)
    trials = study.study.trials
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert len({trial.user_attrs["layout_id"] for trial in trials}) == 3
    assert trials[0].user_attrs["layout"] == "C1-C1-T2-T1@16"
    for trial in trials:
        assert set(trial.intermediate_values) == {1, 2}
        assert trial.value == trial.intermediate_values[2] == trial.user_attrs["map"]
        masks = {name for name in attributes.TRIAL if "map_segm" in name}
        assert set(trial.user_attrs) == set(attributes.TRIAL) - masks - {"fail_reason", "infeasible_reason", "origin"}
        assert Path(trial.user_attrs["checkpoint"]).name == WEIGHTS
        assert Path(trial.user_attrs["checkpoint"]).is_file()
    assert not list(tmp_path.rglob(CHECKPOINT))
    kinds = [event.kind for event in events]
    assert [kinds.count(kind) for kind in ("started", "epoch", "complete")] == [3, 6, 3]

    again, events = search(spec(tmp_path, digits, **{"search.trials": 4}), local)
    assert [trial.number for trial in again.study.trials] == [0, 1, 2, 3]
    assert {event.number for event in events} == {3}
    assert [t.datetime_complete for t in again.study.trials[:3]] == [t.datetime_complete for t in trials]
    assert len(leaderboard(again.study)) == 4


@pytest.mark.filterwarnings("ignore")
def test_candidates_that_fail_do_not_end_the_search_until_ten_in_a_row(tmp_path: Path, digits: Path, local: bool):
    study, events = search(spec(tmp_path, digits, **{"recipe.lr": 1e30, "calibration.enabled": False}), local)
    states = [trial.state for trial in study.study.trials]
    assert states[:10] == [TrialState.FAIL] * 10
    assert len(states) <= 11  # one more was running beside the tenth
    assert "10 candidates in a row failed" in study.stop_reason
    reason = study.study.trials[0].user_attrs["fail_reason"]
    assert reason.startswith("NonFiniteLoss: ")
    assert {event.kind for event in events} == {"started", "failed"} or {"epoch"} & {event.kind for event in events}


@pytest.mark.filterwarnings("ignore")
def test_pruned_candidates_make_room(tmp_path: Path, digits: Path, local: bool, monkeypatch: pytest.MonkeyPatch):
    # Every fifth and later candidate falls below the median of nothing found: prune by a rule that the test decides.
    monkeypatch.setattr("optuna.trial.Trial.should_prune", lambda trial: trial.number > 0)
    study, _ = search(spec(tmp_path, digits), local)
    states = [trial.state.name for trial in study.study.trials]
    assert states == ["COMPLETE", "PRUNED", "PRUNED"]
    assert all(set(trial.intermediate_values) == {1} for trial in study.study.trials[1:])


def test_the_same_candidate_trains_alike_on_both(tmp_path: Path, digits: Path):
    pytest.importorskip("ray")
    values = []
    for name, local in (("a", True), ("b", False)):
        request = spec(tmp_path, digits, **{"search.trials": 1, "study": name, "run.cpus_per_trial": 1})
        study, _ = search(request, local)
        values.append(study.study.trials[0].user_attrs["map"])
    assert values[0] == pytest.approx(values[1], abs=5e-3)  # threads differ, and with them the order of sums


def test_ray_refuses_what_the_machine_has_not(tmp_path: Path, digits: Path):
    pytest.importorskip("ray")
    with pytest.raises(SpecError, match="GPUs of a machine; got 64"):
        search(spec(tmp_path, digits, **{"run.gpus_per_trial": 64, "recipe.batch": 64}), local=False)
    assert not (tmp_path / "nas.db").exists()


def test_out_of_memory_is_infeasible_and_not_tried_again(tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch):
    tried: list[str] = []

    def first_runs_out(job: dict) -> Iterator[EpochReport]:
        tried.append(job["layout"])
        if len(tried) == 1:
            raise OutOfMemory("out of memory at 17.0 GiB on a card", 17 * GIB)
        yield from run_job(job)

    monkeypatch.setattr("workers.local.run_job", first_runs_out)
    study, events = search(spec(tmp_path, digits), local=True)
    trials = study.study.trials
    assert [trial.state for trial in trials] == [TrialState.PRUNED, TrialState.COMPLETE, TrialState.COMPLETE]
    assert trials[0].user_attrs["infeasible_reason"] == "out of memory at 17.0 GiB on a card"
    assert trials[0].user_attrs["memory_peak_gib"] == 17
    assert tried == [trial.user_attrs["layout"] for trial in trials]
    assert [event.kind for event in events][:2] == ["started", "infeasible"]
