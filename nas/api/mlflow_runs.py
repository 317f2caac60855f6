"""The runs that a study has in MLflow: one for itself, and in it one for each of its trainings.

A run is found by its tags, so that a search that is started again goes on with the same ones, from
any machine. Only `MlflowClient` is used: what a notebook has set up of MLflow stays as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.api.mlflow_store import artifacts_uri, open_store
from nas.export.manifest import MANIFEST

if TYPE_CHECKING:
    from mlflow.entities import Run

STUDY_UUID, TRAINING = "nas_study_uuid", "nas_training"  # tags of every run
STUDY = "study"  # value of TRAINING that the study's own run has
BUNDLE, BUNDLE_DIGEST = "bundle", "bundle_sha256"  # its tags: path of the artifact, and its state
STEPS_OF = ("loss", "best_map")  # each step of a run has one of them
LONGEST_VALUE = 5000  # characters of a tag; MLflow takes 6000 of a parameter
PARAMS_AT_ONCE = 100  # MLflow takes no more in one request


@dataclass
class TrackedRun:
    """One run in MLflow, as far as it is known here.

    Attributes:
        run_id: MLflow's.
        tags: of the run.
        params: keys that have a value, which cannot be changed.
        steps: steps whose metrics are there.
    """

    run_id: str
    tags: dict[str, str]
    params: set[str]
    steps: set[int] = field(default_factory=set)


class MlflowRuns:
    """The runs of one study. Methods may be repeated after they were done in part: nothing is
    written twice.

    Args:
        where: folder of a store, or URL of a tracking server, which is not asked yet.
        study: its name, and that of the experiment.
        study_uuid: identifies it.

    Raises:
        MissingDependency: MLflow is not installed.
        StudyError: the store in the folder cannot be used.
    """

    def __init__(self, where: str, study: str, study_uuid: str) -> None:
        self.study, self.study_uuid = study, study_uuid
        self._client, self._artifacts = open_store(where), artifacts_uri(where)
        self._runs: dict[str, TrackedRun] = {}
        self._experiment_id = ""  # not known yet

    def study_run(self) -> TrackedRun:
        """Find the run of the study itself, or begin it."""
        return self._open(STUDY, self.study)

    def training_run(self, key: str, name: str) -> TrackedRun:
        """Find the run of a training, or begin it within that of the study.

        Args:
            key: identifies the training in its study: the number of a trial, for example.
            name: for people.
        """
        parent = {"mlflow.parentRunId": self.study_run().run_id}
        return self._open(key, name, parent)

    def ended(self) -> set[str]:
        """Look up the keys of the trainings of which MLflow knows the end."""
        from mlflow.entities import RunStatus

        states = {run.data.tags[TRAINING]: run.info.status for run in self._search()}
        numbers = {key: RunStatus.from_string(status) for key, status in states.items()}
        return {key for key, number in numbers.items() if RunStatus.is_terminated(number)}

    def describe(self, run: TrackedRun, params: Mapping[str, Any], tags: Mapping[str, Any]) -> None:
        """Give a run tags, and parameters, of which those that it has stay as they are."""
        from mlflow.entities import Param, RunTag

        new = [
            Param(key, str(value)[:LONGEST_VALUE])
            for key, value in params.items()
            if key not in run.params
        ]
        for begin in range(0, len(new), PARAMS_AT_ONCE):
            part = new[begin : begin + PARAMS_AT_ONCE]
            self._client.log_batch(run.run_id, params=part, synchronous=True)
        run.params |= params.keys()
        marks = {key: str(value)[:LONGEST_VALUE] for key, value in tags.items()}
        if marks.items() - run.tags.items():
            listed = [RunTag(key, value) for key, value in marks.items()]
            self._client.log_batch(run.run_id, tags=listed, synchronous=True)
            run.tags |= marks

    def log(self, run: TrackedRun, step: int, metrics: Mapping[str, float], at_s: float) -> None:
        """Add the metrics of a step, unless the run has that step already.

        Args:
            run: the run.
            step: number of the epoch.
            metrics: values by name.
            at_s: when they were measured, seconds since 1970.
        """
        from mlflow.entities import Metric

        if step in run.steps:
            return
        made = [Metric(name, value, int(at_s * 1000), step) for name, value in metrics.items()]
        self._client.log_batch(run.run_id, metrics=made, synchronous=True)
        run.steps.add(step)

    def set_status(self, run: TrackedRun, status: str) -> None:
        """Set the status of a run, a name of MLflow's `RunStatus`; those that are an end get the
        time of it.
        """
        from mlflow.entities import RunStatus

        if RunStatus.is_terminated(RunStatus.from_string(status)):
            self._client.set_terminated(run.run_id, status)
        else:
            self._client.update_run(run.run_id, status)

    def log_bundle(self, bundle: Path) -> None:
        """Add a bundle to the artifacts of the study's run, unless it is there as it is. One of an
        earlier winner stays beside it.
        """
        run = self.study_run()
        digest = hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest()
        if run.tags.get(BUNDLE_DIGEST) == digest:
            return
        path = f"{BUNDLE}-{digest[:8]}" if BUNDLE_DIGEST in run.tags else BUNDLE
        self._client.log_artifacts(run.run_id, str(bundle), path)
        self.describe(run, {}, {BUNDLE: path, BUNDLE_DIGEST: digest})

    def _open(self, key: str, name: str, tags: Mapping[str, str] | None = None) -> TrackedRun:
        if key not in self._runs:
            self._runs[key] = self._tracked(self._find(key) or self._begin(key, name, tags or {}))
        return self._runs[key]

    def _begin(self, key: str, name: str, tags: Mapping[str, str]) -> Run:
        own = {STUDY_UUID: self.study_uuid, TRAINING: key, **tags}
        made = self._client.create_run(self._experiment(), tags=own, run_name=name)
        first = self._find(key) or made
        if first.info.run_id != made.info.run_id:  # of another driver, in the same moment
            self._client.delete_run(made.info.run_id)
        return first

    def _tracked(self, run: Run) -> TrackedRun:
        named = [name for name in STEPS_OF if name in run.data.metrics]
        steps = {
            metric.step
            for name in named
            for metric in self._client.get_metric_history(run.info.run_id, name)
        }
        return TrackedRun(run.info.run_id, dict(run.data.tags), set(run.data.params), steps)

    def _find(self, key: str) -> Run | None:
        runs = self._search(f" and tags.{TRAINING} = '{key}'")
        return min(runs, key=lambda run: (run.info.start_time, run.info.run_id), default=None)

    def _search(self, more: str = "") -> list[Run]:
        condition = f"tags.{STUDY_UUID} = '{self.study_uuid}'{more}"
        runs, token = [], None
        while True:
            page = self._client.search_runs([self._experiment()], condition, page_token=token)
            runs += page
            if not (token := page.token):
                return runs

    def _experiment(self) -> str:
        if not self._experiment_id:
            found = self._client.get_experiment_by_name(self.study)
            self._experiment_id = (
                found.experiment_id
                if found
                else self._client.create_experiment(self.study, self._artifacts)
            )
        return self._experiment_id
