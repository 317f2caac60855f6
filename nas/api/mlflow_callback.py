"""The callback of `run.mlflow`: tells MLflow of a search, without holding it up."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from nas.api.callbacks import TrainingCallback
from nas.api.mlflow_runs import MlflowRuns
from nas.api.mlflow_store import check_store, mlflow_settings, reason
from nas.api.mlflow_updates import (
    FAILED,
    FINISHED,
    KILLED,
    RUNNING,
    WAITING,
    RunUpdate,
    epoch_metrics,
    event_update,
    study_params,
    study_tags,
    trial_update,
)
from nas.reports import EpochReport, PretrainingReport
from nas.search.callbacks import SearchCallback
from nas.search.search import Search
from nas.study.events import Event
from nas.study.leaderboard import leaderboard
from nas.utils.delivery import Delivery
from search_spaces.layout import Layout


class MlflowCallback(SearchCallback):
    """Tells MLflow what happens in a search, from a thread of its own: a server that is slow or
    away holds nothing up, and hears later what it has missed. What it has not heard in the end, a
    continued search tells it.

    Args:
        where: folder of a store, or URL of a tracking server.

    Raises:
        UserError: MLflow is not installed, or the folder cannot be used.
    """

    _runs: MlflowRuns

    def __init__(self, where: str) -> None:
        check_store(where)
        self.where = where
        self._delivery = Delivery()
        self._search: Search | None = None
        self._running: dict[str, str] = {}  # names of trainings in this process, by their keys
        self._has_said = False  # that something is wrong

    def on_start(self, search: Search) -> None:
        study_uuid = search.study.user_attrs["nas_uuid"]
        self._runs = MlflowRuns(self.where, search.study.study_name, study_uuid)
        self._search = search
        self._delivery.add(partial(self._begin, study_params(search), study_tags(search)))
        ended = [trial for trial in search.table.trained if trial.state.is_finished()]
        self._delivery.add(partial(self._catch_up, ended, search))

    def on_event(self, event: Event) -> None:
        if not self._search:
            return
        if event.kind == "lost":  # its run is another driver's now
            self._running.pop(str(event.number), None)
        elif event.number >= 0:
            self.send(event_update(event, self._search))
        self._say_trouble(self._search)

    def on_end(self, bundle: Path | None) -> None:
        assert self._search
        for key, name in list(self._running.items()):  # a full training that nobody goes on with
            self.send(RunUpdate(key, name, status=KILLED))
        if board := leaderboard(self._search.study):
            tags = {"best_layout": board[0].user_attrs["layout"], "best_trial": board[0].number}
            best = partial(self._tell_best, tags, board[0].values[0], self._search.ended)
            self._delivery.add(best)
        if bundle:
            self._delivery.add(partial(self._runs.log_bundle, bundle))
        self._delivery.add(partial(self._end, FINISHED))

    def training(self) -> FullTraining:
        """Make the callback of the winner's full training, which gets a run, too."""
        return FullTraining(self)

    def send(self, update: RunUpdate) -> None:
        """Have MLflow told of a training."""
        if update.status == RUNNING:
            self._running[update.key] = update.name
        elif update.status:
            self._running.pop(update.key, None)
        self._delivery.add(partial(self._tell, update, time.time()))

    def close(self, error: BaseException | None = None) -> None:
        """Wait until MLflow has heard everything, as long as it listens; say where it has not.

        Args:
            error: what has ended the search, after which nobody waits longer than ten seconds; None
                where it has ended by itself.
        """
        if not self._search:
            return
        for key, name in list(self._running.items()):
            self.send(RunUpdate(key, name, status=WAITING))
        if error:
            stopped = isinstance(error, KeyboardInterrupt)
            self._delivery.add(partial(self._end, KILLED if stopped else FAILED, str(error)))
        if not self._delivery.close(patient=error is None):
            self._has_said = True
            self._search.warn(
                f"MLflow at {self.where} has not heard everything{self._why()}: the same command "
                "tells it the rest"
            )

    def _say_trouble(self, search: Search) -> None:
        """Say it once for each time that something goes wrong."""
        trouble, had_said = self._delivery.trouble is not None, self._has_said
        self._has_said = trouble
        if trouble and not had_said:
            search.warn(
                f"MLflow at {self.where} cannot be told what happens{self._why()}: the search goes "
                "on, and MLflow is told later"
            )

    def _why(self) -> str:
        trouble = self._delivery.trouble
        return f" ({reason(trouble, self.where)})" if trouble else ""

    # From here on what runs in the other thread, and may be repeated.

    def _begin(self, params: Mapping[str, Any], tags: Mapping[str, Any]) -> None:
        run = self._runs.study_run()
        self._runs.describe(run, params, tags)
        self._runs.set_status(run, RUNNING)

    def _catch_up(self, ended: Sequence[FrozenTrial], search: Search) -> None:
        """Tell of trials whose end MLflow has not heard: nobody told it, or a driver died."""
        heard = self._runs.ended()
        for trial in ended:
            if str(trial.number) not in heard:
                self._tell(trial_update(trial, search), time.time())

    def _tell(self, update: RunUpdate, at_s: float) -> None:
        run = self._runs.training_run(update.key, update.name)
        self._runs.describe(run, update.params, {"reason": update.reason} if update.reason else {})
        for report in (*update.recorded(), *update.reports):
            self._runs.log(run, report.epoch, epoch_metrics(report), at_s)
        if update.status:
            self._runs.set_status(run, update.status)

    def _tell_best(self, tags: Mapping[str, Any], score: float, ended: int) -> None:
        run = self._runs.study_run()
        self._runs.describe(run, {}, tags)
        self._runs.log(run, ended, {"best_map": score}, time.time())

    def _end(self, status: str, why: str = "") -> None:
        run = self._runs.study_run()
        self._runs.describe(run, {}, {"reason": why} if why else {})
        self._runs.set_status(run, status)


class FullTraining(TrainingCallback):
    """Tells MLflow of the full training of a winner.

    Args:
        tracker: of its search.
    """

    def __init__(self, tracker: MlflowCallback) -> None:
        self.tracker = tracker

    def on_begin(self, layout: Layout, epochs: int) -> None:
        self.name = f"full training of {layout}, {epochs} epochs"
        params = {"layout": str(layout), "role": "winner"}
        self.tracker.send(RunUpdate(self.name, self.name, params, status=RUNNING))

    def on_report(self, report: EpochReport | PretrainingReport) -> None:
        if isinstance(report, EpochReport):
            self.tracker.send(RunUpdate(self.name, self.name, reports=(report,)))

    def on_trained(self) -> None:
        self.tracker.send(RunUpdate(self.name, self.name, status=FINISHED))


@contextmanager
def tracking(where: str | None) -> Iterator[Sequence[MlflowCallback]]:
    """Give the callback that a search with `run.mlflow` has, and none to one without.

    Args:
        where: `run.mlflow`.

    Raises:
        UserError: MLflow is not installed, or the folder cannot be used.
    """
    if where is None:
        yield ()
        return
    with mlflow_settings(where):
        tracker = MlflowCallback(where)
        try:
            yield (tracker,)
        except BaseException as error:
            tracker.close(error)
            raise
        tracker.close()
