"""Ray Tune tells here what a trial reports; the study decides whether it goes on."""

from __future__ import annotations

import json
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from nas.records import EpochReport
from nas.study import SearchStudy
from workers.searcher import StudySearcher


class StudyScheduler(FIFOScheduler):
    """First in, first out; stops a trial that reached its last epoch, was pruned or ended by an error.

    Args:
        study: decides.
        searcher: knows which Ray trial is which.
        gpus: share of GPUs of each trial.
    """

    def __init__(self, study: SearchStudy, searcher: StudySearcher, gpus: float) -> None:
        super().__init__()
        self.study, self.searcher, self.gpus = study, searcher, gpus

    def __getstate__(self) -> dict[str, Any]:
        """Nothing for Tune to store: the study is the state."""
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        number = self.searcher.numbers[trial.trial_id]
        message = json.loads(result["message"])
        if "report" in message:
            goes_on = self.study.report(number, EpochReport.from_dict(message["report"]), gpus=self.gpus)
            return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP
        if "peak_bytes" in message:
            self.study.infeasible(number, message["reason"], message["peak_bytes"])
        else:
            self.study.fail(number, message["reason"])
        return TrialScheduler.STOP
