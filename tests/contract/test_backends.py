"""Every backend, Ray Tune's workers, this process and the simulator, runs the same search in the
same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.tables import run, table_of
from optuna.trial import TrialState

from nas.artifacts.paths import CHECKPOINT, WEIGHTS
from nas.config.spec import SearchSpec, load_spec
from nas.data.splits import adapt_to_data
from nas.errors import OutOfMemory, SpecError
from nas.reports import EpochReport
from nas.search.search import Search
from nas.study import schema as attributes
from nas.study.events import Event
from nas.study.leaderboard import leaderboard
from nas.utils.formatting import GIB
from workers.driver import Watcher, run_search
from workers.simulator.backend import Simulation
from workers.trial_config import run_job


def spec(tmp_path: Path, digits: Path, **flags: object) -> SearchSpec:
    base = {
        "data.root": str(digits),
        "space": "tiny",
        "storage": f"sqlite:///{tmp_path}/nas.db",
        "detector.name": "fcos",
        "run.output": str(tmp_path / "runs"),
        "recipe.epochs": 2,
        "recipe.image_size": 32,
        "search.trials": 3,
        "search.baselines": False,
        "search.sampler": "random",
        "run.concurrent": 2,
        "search.try": ["C1-C1-T2-T1@16"],
        "data.test": "val",
    }
    return load_spec(None, {**base, **flags})


def search(request: SearchSpec, backend: str) -> tuple[Search, list[Event]]:
    events: list[Event] = []
    if backend == "simulator":
        return replayed(request, events), events
    return run_search(request, Watcher(on_event=events.append), local=backend == "local"), events


def replayed(request: SearchSpec, events: list[Event]) -> Search:
    """The search on a table of its space, in which a learning rate of 1e30 makes every training
    fail.
    """
    request, _, facts = adapt_to_data(request)
    diverges = (
        {"fail_reason": "NonFiniteLoss: in step 3", "elapsed_s": (2.0,)}
        if request.recipe.lr > 1
        else {}
    )
    maps = () if diverges else (0.1, 0.2)
    table = table_of(
        lambda layout: [run(str(layout), maps, sum(layout.depths), **diverges)],
        facts,
        request.to_dict(),
    )
    study = Search(request, facts, events.append)
    with study.lease():
        Simulation(study, table, workers=2).run()
    return study


@pytest.fixture(params=["local", "ray", "simulator"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "ray":
        pytest.importorskip("ray")
    return request.param


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_search_and_its_continuation(tmp_path: Path, digits: Path, backend: str):
    study, events = search(spec(tmp_path, digits), backend)
    trials = study.study.trials
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert len({trial.user_attrs["layout_id"] for trial in trials}) == 3
    assert trials[0].user_attrs["layout"] == "C1-C1-T2-T1@16"
    for trial in trials:
        assert set(trial.intermediate_values) == {1, 2}
        assert trial.value == trial.intermediate_values[2] == trial.user_attrs["map"]
        absent = {name for name in attributes.TRIAL if "map_segm" in name}
        if backend == "simulator":  # which has no test split and no weights
            absent |= {name for name in attributes.TRIAL if name.startswith("test_")}
        assert set(trial.user_attrs) == set(attributes.TRIAL) - absent - {
            "fail_reason",
            "infeasible_reason",
            "origin",
        }
        assert Path(trial.user_attrs["checkpoint"]).name == WEIGHTS
        assert Path(trial.user_attrs["checkpoint"]).is_file() == (backend != "simulator")
    assert not list(tmp_path.rglob(CHECKPOINT))
    kinds = [event.kind for event in events]
    assert [kinds.count(kind) for kind in ("started", "epoch", "complete")] == [3, 6, 3]

    again, events = search(spec(tmp_path, digits, **{"search.trials": 4}), backend)
    assert [trial.number for trial in again.study.trials] == [0, 1, 2, 3]
    assert {event.number for event in events} == {3}
    assert [t.datetime_complete for t in again.study.trials[:3]] == [
        t.datetime_complete for t in trials
    ]
    assert len(leaderboard(again.study)) == 4


@pytest.mark.filterwarnings("ignore")
def test_candidates_that_fail_do_not_end_the_search_until_ten_in_a_row(
    tmp_path: Path, digits: Path, backend: str
):
    study, events = search(
        spec(tmp_path, digits, **{"recipe.lr": 1e30, "calibration.enabled": False}), backend
    )
    states = [trial.state for trial in study.study.trials]
    assert states[:10] == [TrialState.FAIL] * 10
    assert len(states) <= 11  # one more was running beside the tenth
    assert "10 candidates in a row failed" in study.stop_reason
    reason = study.study.trials[0].user_attrs["fail_reason"]
    assert reason.startswith("NonFiniteLoss: ")
    assert {event.kind for event in events} == {"started", "failed"} or {"epoch"} & {
        event.kind for event in events
    }


@pytest.mark.filterwarnings("ignore")
def test_pruned_candidates_make_room(
    tmp_path: Path, digits: Path, backend: str, monkeypatch: pytest.MonkeyPatch
):
    # Every fifth and later candidate falls below the median of nothing found: prune by a rule that
    # the test decides.
    monkeypatch.setattr("optuna.trial.Trial.should_prune", lambda trial: trial.number > 0)
    study, _ = search(spec(tmp_path, digits), backend)
    states = [trial.state.name for trial in study.study.trials]
    assert states == ["COMPLETE", "PRUNED", "PRUNED"]
    assert all(set(trial.intermediate_values) == {1} for trial in study.study.trials[1:])


def test_the_same_candidate_trains_alike_on_both(tmp_path: Path, digits: Path):
    pytest.importorskip("ray")
    values = []
    for name, backend in (("a", "local"), ("b", "ray")):
        request = spec(
            tmp_path, digits, **{"search.trials": 1, "study": name, "run.cpus_per_trial": 1}
        )
        study, _ = search(request, backend)
        values.append(study.study.trials[0].user_attrs["map"])
    assert values[0] == pytest.approx(
        values[1], abs=5e-3
    )  # threads differ, and with them the order of sums


def test_ray_refuses_what_the_machine_has_not(tmp_path: Path, digits: Path):
    pytest.importorskip("ray")
    with pytest.raises(SpecError, match="GPUs of a machine; got 64"):
        search(spec(tmp_path, digits, **{"run.gpus_per_trial": 64, "recipe.batch": 64}), "ray")
    assert not (tmp_path / "nas.db").exists()


def test_out_of_memory_is_infeasible_and_not_tried_again(
    tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
):
    tried: list[str] = []

    def first_runs_out(job: dict) -> Iterator[EpochReport]:
        tried.append(job["layout"])
        if len(tried) == 1:
            raise OutOfMemory("out of memory at 17.0 GiB on a card", 17 * GIB)
        yield from run_job(job)

    monkeypatch.setattr("workers.local.run_job", first_runs_out)
    study, events = search(spec(tmp_path, digits), "local")
    trials = study.study.trials
    assert [trial.state for trial in trials] == [
        TrialState.PRUNED,
        TrialState.COMPLETE,
        TrialState.COMPLETE,
    ]
    assert trials[0].user_attrs["infeasible_reason"] == "out of memory at 17.0 GiB on a card"
    assert trials[0].user_attrs["memory_peak_gib"] == 17
    assert tried == [trial.user_attrs["layout"] for trial in trials]
    assert [event.kind for event in events][:2] == ["started", "infeasible"]
