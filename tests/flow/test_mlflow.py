"""A search in MLflow: what is read back by MLflow's own client from a store of its own."""

from __future__ import annotations

import csv
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import run_here, wait_until
from helpers.servers import free_port
from helpers.untrained import FACTS, EventRecorder, report, spec

from nas.api.mlflow_callback import tracking
from nas.api.mlflow_runs import MlflowRuns
from nas.api.training import curves_folder, train_bundle
from nas.artifacts.history import append_report
from nas.export.from_study import write_trial
from nas.export.manifest import write_manifest
from nas.search.callbacks import CallbackList
from nas.search.open_search import open_search
from nas.study.leaderboard import load_study
from nas.study.storage import open_storage
from nas.utils import delivery

pytestmark = [
    pytest.mark.skipif(
        find_spec("mlflow") is None, reason="needs MLflow: pip install 'scratch-nas[mlflow]'"
    ),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning"),  # MLflow's
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a store, which takes seconds to make; studies have different ids."""
    return str(tmp_path_factory.mktemp("mlflow") / "mlruns")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Nothing of what MLflow reads stays behind in the environment."""
    before = dict(os.environ)
    yield
    assert {key: os.environ[key] for key in os.environ if key.startswith("MLFLOW")} == {
        key: before[key] for key in before if key.startswith("MLFLOW")
    }


class Told:
    """A search that nothing trained, of which MLflow is told.

    Args:
        folder: of the search.
        where: folder or URL of MLflow; None: it is not told.
        drive: does what happens in the search.
        bundle: of the winner.
        flags: keys of the request.
    """

    def __init__(
        self,
        folder: Path,
        where: str | None,
        drive: Callable[[Told], object] = lambda _: None,
        bundle: Path | None = None,
        **flags: Any,
    ) -> None:
        recorder = EventRecorder()
        with tracking(where) as self.trackers:
            told = CallbackList([recorder, *self.trackers])
            self.search = open_search(spec(folder, **flags), FACTS, [told])
            self.uuid, self.events = self.search.study.user_attrs["nas_uuid"], recorder.events
            with self.search.lease():
                told.on_start(self.search)
                drive(self)
            told.on_end(bundle)

    def train(self, *scores: float, **changes: Any) -> int:
        """A candidate, as far as there are scores; returns its number."""
        assignment = self.search.ask()
        assert assignment
        assignment.folder.mkdir(parents=True)
        for epoch, score in enumerate(scores, 1):
            heard = report(score, epoch, **changes)
            append_report(assignment.folder, heard)
            self.search.report(assignment.number, heard)
        return assignment.number

    def wait_for_trouble(self) -> None:
        """Until something went wrong, of which the next event speaks."""
        (tracker,) = self.trackers
        wait_until(lambda: tracker._delivery.trouble)

    @property
    def notes(self) -> list[str]:
        return [event.reason or "" for event in self.events if event.kind == "note"]


class Stored:
    """The runs of a study, by what they are of.

    Args:
        where: folder of a store.
        uuid: of the study.
    """

    def __init__(self, where: str, uuid: str) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(f"sqlite:///{where}/mlflow.db")
        experiments = [each.experiment_id for each in self.client.search_experiments()]
        found = self.client.search_runs(experiments, f"tags.nas_study_uuid = '{uuid}'")
        self.runs = {run.data.tags["nas_training"]: run for run in found}
        assert len(self.runs) == len(found), "a run is there twice"
        self.study = self.runs.pop("study")

    @property
    def states(self) -> dict[str, str]:
        return {key: run.info.status for key, run in sorted(self.runs.items())}

    def history(self, key: str, metric: str) -> list[tuple[int, float]]:
        """Every value of a metric with its step, as they were added."""
        history = self.client.get_metric_history(self.runs[key].info.run_id, metric)
        return [(each.step, each.value) for each in history]

    def artifacts(self, path: str, folder: Path) -> dict[str, bytes]:
        """Files of the study's run below a path, by name."""
        run_id = self.study.info.run_id
        loaded = Path(self.client.download_artifacts(run_id, path, str(folder)))
        return {each.name: each.read_bytes() for each in loaded.iterdir()}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def bundle(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "README.md").write_text(text)
    (folder / "detector.safetensors").write_bytes(bytes(range(256)))
    write_manifest(folder)
    return folder


def test_runs_have_parameters_epochs_and_states(tmp_path: Path, store: str):
    def drive(told: Told) -> None:
        told.train(0.25, 0.5, loss=1.25)
        told.search.fail(told.train(), "diverged")
        told.search.infeasible(told.train(0.1), "needs too much", 2**40)
        number = told.train(0.125)
        told.search.requeue(number, "the worker died")
        again = told.search.ask()
        assert again
        assert again.number == number
        for epoch, score in ((1, 0.125), (2, 0.375)):  # the first is reported again
            told.search.report(number, report(score, epoch))

    made = Told(tmp_path, store, drive, **{"search.trials": 4})
    stored = Stored(store, made.uuid)
    assert stored.states == {"0": "FINISHED", "1": "FAILED", "2": "KILLED", "3": "FINISHED"}
    assert stored.history("0", "map") == [(1, 0.25), (2, 0.5)]
    assert stored.history("0", "loss") == [(1, 1.25), (2, 1.25)]
    assert stored.history("0", "elapsed_s") == [(1, 12.0), (2, 24.0)]
    assert stored.history("1", "map") == []
    assert stored.history("2", "map") == [(1, 0.1)]
    assert stored.history("3", "map_50") == [(1, 0.125), (2, 0.375)]
    assert "map_small" not in stored.runs["0"].data.metrics  # the ground truth has none
    reasons = {key: run.data.tags.get("reason") for key, run in stored.runs.items()}
    assert reasons["1"] == "diverged"
    assert reasons["2"] == "needs too much"
    for run in stored.runs.values():
        assert run.data.tags["mlflow.parentRunId"] == stored.study.info.run_id
        assert run.info.end_time >= run.info.start_time
    started = next(event for event in made.events if event.kind == "started")
    params = stored.runs["0"].data.params
    assert params["layout"] == started.layout
    assert (params["role"], params["replicate"]) == ("candidate", "0")
    predicted = started.memory_predicted_bytes or 0
    assert float(params["memory_predicted_gib"]) == pytest.approx(predicted / 2**30, abs=1e-4)
    assert made.notes == []


def test_the_study_has_its_request_and_its_best(tmp_path: Path, store: str):
    def drive(told: Told) -> None:
        for score in (0.2, 0.4, 0.3):
            told.train(score, score)

    made = Told(tmp_path, store, drive, **{"detector.name": "atss"})
    study = Stored(store, made.uuid).study
    assert study.info.status == "FINISHED"
    assert study.info.run_name == "cells"
    told = study.data.params
    assert told["space"] == "tiny"
    assert told["recipe.epochs"] == "2"
    assert told["detector.name"] == "atss"
    assert told["data.train_images"] == "64"
    assert told["budget_gib"] == "16.0"
    assert study.data.metrics == {"best_map": 0.4}
    assert study.data.tags["best_trial"] == "1"
    assert study.data.tags["search.trials"] == "3"


def test_a_continued_search_goes_on_with_the_same_runs(tmp_path: Path, store: str):
    def stopped(told: Told) -> None:
        told.train(0.2, 0.4)
        told.train(0.3)
        raise KeyboardInterrupt

    uuids: list[str] = []

    def on(told: Told) -> None:
        uuids.append(told.search.study.user_attrs["nas_uuid"])
        before = Stored(store, uuids[0])
        assert before.states == {"0": "FINISHED", "1": "SCHEDULED"}
        assert before.study.info.status in ("KILLED", "RUNNING")
        assignment = told.search.ask()
        assert assignment
        assert assignment.number == 1
        for epoch in (1, 2):
            told.search.report(1, report(0.3 * epoch, epoch))
        told.train(0.1, 0.1)

    with suppress(KeyboardInterrupt):
        Told(tmp_path, store, stopped, **{"search.trials": 3})
    made = Told(tmp_path, store, on, **{"search.trials": 3})
    again = Told(tmp_path, store, **{"search.trials": 3})
    assert again.uuid == made.uuid
    stored = Stored(store, made.uuid)
    assert stored.states == {"0": "FINISHED", "1": "FINISHED", "2": "FINISHED"}
    assert stored.history("0", "map") == [(1, 0.2), (2, 0.4)]
    assert stored.history("1", "map") == [(1, 0.3), (2, 0.6)]
    assert stored.study.info.status == "FINISHED"
    best = stored.client.get_metric_history(stored.study.info.run_id, "best_map")
    assert [(each.step, each.value) for each in best] == [(3, 0.6)]


def test_drivers_that_begin_at_once_share_a_run(store: str, monkeypatch: pytest.MonkeyPatch):
    first, second = MlflowRuns(store, "both", "u-u"), MlflowRuns(store, "both", "u-u")
    run_id = first.study_run().run_id
    answers, find = iter([None]), second._find
    monkeypatch.setattr(second, "_find", lambda key: next(answers, find(key)))
    assert second.study_run().run_id == run_id
    assert Stored(store, "u-u").study.info.run_id == run_id


def test_what_was_not_told_is_told_by_the_next_command(tmp_path: Path, store: str):
    """As after a kill of the driver, and where MLflow is wished for only later."""

    def untold(told: Told) -> None:
        told.train(0.2, 0.4)
        told.search.fail(told.train(0.1), "diverged")
        told.train(0.3)

    Told(tmp_path, None, untold)

    def on(told: Told) -> None:
        assignment = told.search.ask()
        assert assignment
        told.search.report(assignment.number, report(0.5, 2))

    stored = Stored(store, Told(tmp_path, store, on).uuid)
    assert stored.states == {"0": "FINISHED", "1": "FAILED", "2": "FINISHED"}
    assert stored.history("0", "map") == [(1, 0.2), (2, 0.4)]
    assert stored.history("1", "map") == [(1, 0.1)]
    assert stored.history("2", "map") == [(1, 0.3), (2, 0.5)]
    assert stored.runs["1"].data.tags["reason"] == "diverged"
    assert stored.runs["0"].data.params["role"] == "candidate"


def test_bundles_are_artifacts_of_the_study(tmp_path: Path, store: str):
    first, second = bundle(tmp_path / "first", "one"), bundle(tmp_path / "second", "two")
    made = Told(tmp_path, store, bundle=first)
    stored = Stored(store, made.uuid)
    assert stored.artifacts("bundle", tmp_path) == contents(first)
    (first / "README.md").write_text("changed by somebody, and so not exported")
    Told(tmp_path, store, bundle=first)
    (tmp_path / "again").mkdir()
    kept = stored.artifacts("bundle", tmp_path / "again")
    assert kept["README.md"] == b"one"  # its manifest says that it is there already

    Told(tmp_path, store, bundle=second)
    stored = Stored(store, made.uuid)
    path = stored.study.data.tags["bundle"]
    assert path != "bundle"
    assert stored.artifacts(path, tmp_path) == contents(second)
    assert len(stored.client.list_artifacts(stored.study.info.run_id)) == 2


@pytest.fixture
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "LONGEST_PAUSE_S", 0.01)
    monkeypatch.setattr(delivery, "LAST_S", 0.2)


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize("hangs", [False, True], ids=["refuses", "hangs"])
def test_a_server_that_is_away_ends_nothing(
    tmp_path: Path, hangs: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")

    def drive(told: Told) -> None:
        told.wait_for_trouble()
        told.train(0.2, 0.4)
        told.train(0.3, 0.5)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if hangs else free_port()
        made = Told(tmp_path, f"http://127.0.0.1:{port}", drive, **{"search.trials": 2})
    kinds = [event.kind for event in made.events]
    assert kinds.count("complete") == 2
    while_it_ran, at_the_end = made.notes
    why = "timed out" if hangs else "Connection refused"
    assert f"MLflow at http://127.0.0.1:{port} cannot be told what happens" in while_it_ran
    assert why in while_it_ran
    assert "has not heard everything" in at_the_end


@pytest.mark.usefixtures("_hasty")
def test_a_server_that_comes_back_hears_all_of_it_once(tmp_path: Path, store: str):
    from helpers.mlflow_server import MlflowServer

    with MlflowServer(f"sqlite:///{store}/mlflow.db", tmp_path / "artifacts") as server:

        def drive(told: Told) -> None:
            told.train(0.2, 0.4)
            server.status = 503
            told.train(0.3)
            told.wait_for_trouble()
            told.search.report(1, report(0.5, 2))
            server.status = 200
            told.train(0.1, 0.1)

        where = f"http://127.0.0.1:{server.port}"
        made = Told(tmp_path, where, drive, study="served")
    stored = Stored(store, made.uuid)
    assert stored.states == {"0": "FINISHED", "1": "FINISHED", "2": "FINISHED"}
    for key, scores in {"0": (0.2, 0.4), "1": (0.3, 0.5), "2": (0.1, 0.1)}.items():
        assert stored.history(key, "map") == list(enumerate(scores, 1))
    (note,) = made.notes
    assert "503" in note


def test_a_password_reaches_the_server_alone(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    from helpers.mlflow_server import MlflowServer

    password = "s3cr%40t%2Fword"  # as a URL has it
    monkeypatch.setenv("NAS_SECRET_127_0_0_1", password)
    with MlflowServer(f"sqlite:///{store}/mlflow.db", tmp_path / "artifacts") as server:
        where = f"http://me:${{NAS_SECRET_127_0_0_1}}@127.0.0.1:{server.port}"

        def drive(told: Told) -> None:
            told.train(0.2, 0.4)
            server.status = 401
            told.train(0.3)
            told.wait_for_trouble()
            told.search.report(1, report(0.5, 2))
            server.status = 200

        sent = bundle(tmp_path / "sent", "one")
        flags = {"run.mlflow": where, "search.trials": 2, "study": "served"}
        made = Told(tmp_path, where, drive, sent, **flags)
        assert set(server.users) == {"me:s3cr@t/word"}
    path = f"artifacts/{Stored(store, made.uuid).study.info.artifact_uri.split(':/')[1]}/bundle"
    assert contents(tmp_path / path) == contents(sent)
    (note,) = made.notes
    assert "${NAS_SECRET_127_0_0_1}@" in note
    printed = capfd.readouterr()
    assert printed.out == ""
    kept = (tmp_path / "nas.db").read_bytes() + Path(store, "mlflow.db").read_bytes()
    for text in (printed.err.encode(), note.encode(), kept):
        assert b"s3cr" not in text


def without_onnx(write: Callable[..., Any]) -> Callable[..., Any]:
    """A function that writes a bundle, in less than a minute."""
    return lambda *arguments, **options: write(*arguments, **{**options, "onnx": False})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_commands_keep_a_search_there(
    tmp_path: Path, digits: Path, store: str, monkeypatch: pytest.MonkeyPatch
):
    """In earnest: the full training of the winner is a run, its bundle the artifact, also after the
    search has gone on.
    """
    monkeypatch.setattr("nas.api.winner.write_trial", without_onnx(write_trial))
    monkeypatch.setattr("nas.api.winner.train_bundle", without_onnx(train_bundle))
    monkeypatch.chdir(Path(store).parent)  # the folder may be named from there
    where = ("--storage", f"sqlite:///{tmp_path}/nas.db")
    small = ("--space", "tiny", "--detector", "fcos", "--image-size", "32", "--no-baselines")
    words = ("--data", digits, "--epochs", 1, "--trials", 1, "--output", tmp_path / "runs")
    asked = (*words, *small, "--finish", "train", "--mlflow", "mlruns")
    done = run_here("nas-submit", "--local", *where, *asked)
    assert done.code == 0, done.err
    folder = Path(done.out.splitlines()[-1].partition(": ")[0])
    with curves_folder(folder).joinpath("curves.csv").open() as file:
        curve = [(int(row["epoch"]), float(row["map"])) for row in csv.DictReader(file)]

    monkeypatch.chdir(tmp_path)
    more = run_here("nas", "resume", "--local", *where, "--trials", 2, "--json")
    assert more.code == 0, more.err
    assert more.json["study"] == "digits"
    study = load_study(open_storage(where[1], create=False), None)
    stored = Stored(store, study.user_attrs["nas_uuid"])
    for trial in study.trials:
        assert stored.runs[str(trial.number)].info.status == "FINISHED"
        scores = sorted(trial.intermediate_values.items())
        assert len(scores) == 1
        assert stored.history(str(trial.number), "map") == scores
    layout = study.trials[0].user_attrs["layout"]
    full = f"full training of {layout}, 4 epochs"
    assert [epoch for epoch, _ in curve] == [1, 2, 3, 4]
    assert stored.history(full, "map") == curve
    assert stored.runs[full].info.status == "FINISHED"
    path = stored.study.data.tags["bundle"]
    (tmp_path / "loaded").mkdir()
    assert stored.artifacts(path, tmp_path / "loaded") == contents(folder)
