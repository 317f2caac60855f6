"""Ray Tune tells here what a trial reports; the study decides whether it goes on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from nas.reports import EpochReport
from nas.search.search import Search
from workers.backend import requeue_after_death, tell
from workers.ray_tune.messages import decode
from workers.ray_tune.ray_internals import keep_workers
from workers.ray_tune.searcher import StudySearcher
from workers.ray_tune.start_monitor import StartMonitor
from workers.ray_tune.worker_death import death_text


class StudyScheduler(FIFOScheduler):
    """First in, first out; stops a trial that reached its last epoch, was pruned or ended by an
    error.

    Args:
        search: decides.
        searcher: knows which Ray trial is which.
        gpus: share of GPUs of each trial.
    """

    def __init__(self, search: Search, searcher: StudySearcher, gpus: float) -> None:
        super().__init__()
        self.search, self.searcher, self.gpus = search, searcher, gpus
        self._keeps_workers = False
        self._starts = StartMonitor(search, joined=bool(os.environ.get("RAY_ADDRESS")))

    def __getstate__(self) -> dict[str, Any]:
        """Give Tune nothing to store: the study is the state."""
        return {}

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Hear of a new Ray trial; from the first on, worker processes are kept for the next
        candidate.
        """
        super().on_trial_add(tune_controller, trial)
        if not self._keeps_workers:
            keep_workers(tune_controller, trial, self.searcher.concurrent)
            self._keeps_workers = True

    def choose_trial_to_run(self, tune_controller: Any, **options: Any) -> Any:
        """Answer Tune, which asks again and again, with the trial whose turn it is."""
        self._starts.look(tune_controller.get_trials())
        return super().choose_trial_to_run(tune_controller, **options)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Hear of a worker that died."""
        number = self.searcher.numbers.get(trial.trial_id)
        if number is not None and self.search.is_running(number):
            requeue_after_death(self.search, number, death_text(_error_of(trial)))
        super().on_trial_error(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Tell the search what a worker said; returns Tune's word for whether the trial goes on."""
        message = decode(result["message"])
        number = self.searcher.numbers[trial.trial_id]
        goes_on = tell(self.search, number, message, gpus=self.gpus)
        if not goes_on and isinstance(message, EpochReport):
            self.searcher.trained_for(message.elapsed_s)
        return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP


def _error_of(trial: Any) -> str:
    """What Tune has written of a trial's error, for which it keeps nothing else until it syncs."""
    try:
        return Path(trial.error_file).read_text(errors="replace")
    except (OSError, TypeError):  # there is no such file
        return ""
