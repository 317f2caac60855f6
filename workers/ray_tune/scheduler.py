"""Ray Tune tells here what a trial reports; the study decides whether it goes on."""

from __future__ import annotations

import json
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from nas.reports import EpochReport
from nas.search.search import Search
from workers.ray_tune.searcher import StudySearcher


class StudyScheduler(FIFOScheduler):
    """First in, first out; stops a trial that reached its last epoch, was pruned or ended by an
    error.

    Args:
        study: decides.
        searcher: knows which Ray trial is which.
        gpus: share of GPUs of each trial.
    """

    def __init__(self, study: Search, searcher: StudySearcher, gpus: float) -> None:
        super().__init__()
        self.study, self.searcher, self.gpus = study, searcher, gpus
        self._keeps_workers = False

    def __getstate__(self) -> dict[str, Any]:
        """Nothing for Tune to store: the study is the state."""
        return {}

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Keep every worker process for the next candidate: Tune keeps one, and a new one takes
        seconds to start.
        """
        super().on_trial_add(tune_controller, trial)
        if not self._keeps_workers:
            tune_controller._actor_cache.increase_max(
                trial.placement_group_factory, self.searcher.concurrent
            )
            self._keeps_workers = True

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        number = self.searcher.numbers[trial.trial_id]
        message = json.loads(result["message"])
        if "report" in message:
            report = EpochReport.from_dict(message["report"])
            goes_on = self.study.report(number, report, gpus=self.gpus)
            if not goes_on:
                self.searcher.trained_for(report.elapsed_s)
            return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP
        if "peak_bytes" in message:
            self.study.infeasible(number, message["reason"], message["peak_bytes"])
        elif "halts" in message:
            self.study.suspend(number, message["reason"])
        else:
            self.study.fail(number, message["reason"])
        return TrialScheduler.STOP
