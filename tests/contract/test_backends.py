"""Every backend, Ray Tune's workers, this process and the simulator, runs the same search in the
same way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.tables import run, table_of
from helpers.untrained import EventRecorder, report
from optuna.trial import TrialState

from nas.artifacts.paths import CHECKPOINT, WEIGHTS
from nas.config.spec import SearchSpec, load_spec
from nas.errors import DataError, OutOfMemory, OutputError, SpecError, StudyError
from nas.planning.adaptation import adapt_to_data
from nas.reports import EpochReport
from nas.search.open_search import open_search
from nas.search.search import Search
from nas.study import schema as attributes
from nas.study.events import Event
from nas.study.leaderboard import leaderboard, load_study
from nas.study.storage import open_storage
from nas.utils.formatting import GIB
from workers.backend import TrialEnd, until_end
from workers.driver import run_search
from workers.simulator.backend import Simulation, Timeline
from workers.trial_config import run_trial


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
    recorder = EventRecorder()
    if backend == "simulator":
        return replayed(request, recorder), recorder.events
    return run_search(request, [recorder], local=backend == "local"), recorder.events


def replayed(request: SearchSpec, recorder: EventRecorder) -> Search:
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
    timeline = Timeline()
    opened = open_search(request, facts, [recorder, timeline])
    with opened.lease():
        Simulation(opened, table, 2, timeline).run()
    return opened


SLOW_RAY = pytest.param("ray", marks=pytest.mark.long)


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
            "latency_ms",  # nobody asked for it
            "origin",
            "worker_deaths",
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
@pytest.mark.parametrize("backend", ["local", SLOW_RAY, "simulator"], indirect=True)
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
    told = sorted(event.number for event in events if event.kind == "failed")
    assert told == [number for number, state in enumerate(states) if state == TrialState.FAIL]
    assert {event.kind for event in events} == {"started", "failed"}  # diverged in its first epoch


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


@pytest.mark.long
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

    def first_runs_out(config: dict) -> Iterator[EpochReport]:
        tried.append(config["layout"])
        if len(tried) == 1:
            raise OutOfMemory("out of memory at 17.0 GiB on a card", 17 * GIB)
        yield from run_trial(config)

    monkeypatch.setattr("workers.local.run_trial", first_runs_out)
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


def use_reports(
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    reports: Callable[[int], Iterator[EpochReport]],
) -> None:
    """In place of every training: `reports`, called with the trial's number where it is trained."""
    if backend == "local":
        monkeypatch.setattr("workers.local.run_trial", lambda config: reports(config["number"]))
        return
    import helpers.untrained
    from ray import cloudpickle

    from workers.ray_tune import tuner

    cloudpickle.register_pickle_by_value(helpers.untrained)  # Ray's workers cannot import it

    class Scripted(tuner.CandidateTrainable):
        """Defined here, so that Ray sends it to its workers as it is."""

        def reports(self, config: dict) -> Iterator[EpochReport]:
            return reports(json.loads(config["trial"])["number"])

    monkeypatch.setattr(tuner, "CandidateTrainable", Scripted)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", ["local", SLOW_RAY], indirect=True)
def test_what_would_stop_every_training_ends_the_search_with_its_reason(
    tmp_path: Path, digits: Path, backend: str, monkeypatch: pytest.MonkeyPatch
):
    def reports(number: int) -> Iterator[EpochReport]:
        yield report(0.1, 1)
        raise StudyError("the study has gone")

    use_reports(monkeypatch, backend, reports)
    request = spec(tmp_path, digits, **{"run.concurrent": 1})
    with pytest.raises(StudyError, match=r"^the study has gone\. Nothing is lost"):
        search(request, backend)
    (trial,) = load_study(open_storage(request.storage, create=False), request.study).trials
    assert trial.state == TrialState.RUNNING
    assert trial.intermediate_values == {1: 0.1}
    monkeypatch.undo()
    again, _ = search(request, "local")  # the next driver goes on with the same trial
    assert [(trial.number, trial.state) for trial in again.study.trials] == [
        (number, TrialState.COMPLETE) for number in range(3)
    ]


def test_a_training_that_stops_without_a_word_is_a_failure(
    tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
):
    def reports(number: int) -> Iterator[EpochReport]:
        yield report(0.1, 1)
        if number:
            yield report(0.2, 2)

    use_reports(monkeypatch, "local", reports)
    study, _ = search(spec(tmp_path, digits, **{"search.trials": 1}), "local")
    assert [trial.state.name for trial in study.study.trials] == ["FAIL", "COMPLETE"]
    reason = study.study.trials[0].user_attrs["fail_reason"]
    assert reason == "the training stopped before its last epoch"


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (OutOfMemory("too large", 7), TrialEnd("infeasible", "too large", 7)),
        (OutputError("full"), TrialEnd("suspended", "full")),
        (DataError("gone"), TrialEnd("suspended", "gone")),
        (StudyError("away"), TrialEnd("suspended", "away")),
        (SpecError("no such weights"), TrialEnd("failed", "SpecError: no such weights")),
        (ValueError("odd"), TrialEnd("failed", "ValueError: odd")),
    ],
)
def test_every_end_of_a_training_has_one_meaning(error: Exception, end: TrialEnd):
    def training() -> Iterator[EpochReport]:
        yield report(0.1, 1)
        raise error

    assert list(until_end(training())) == [report(0.1, 1), end]
    pytest.importorskip("ray")
    from workers.ray_tune.messages import decode, encode

    assert [decode(encode(message)) for message in until_end(training())] == [report(0.1, 1), end]
