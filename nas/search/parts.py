"""The parts of a search that its queue and its recorder share."""

from __future__ import annotations

from dataclasses import dataclass

import optuna

from nas.artifacts.trial_files import TrialFiles
from nas.config.spec import SearchSpec
from nas.search.budget import Budget
from nas.search.callbacks import SearchCallback
from nas.search.layout_filter import LayoutFilter
from nas.search.running import RunningTrials
from nas.search.time_limit.clock import SearchClock
from nas.search.time_limit.plan import TimePlan
from nas.study.lease import Lease, SoleLease
from nas.study.trials import TrialTable


@dataclass(frozen=True, kw_only=True)
class SearchParts:
    """The built parts of one search.

    Attributes:
        spec: the request.
        budget: the memory limit, and predictions, which are corrected as trials complete.
        study: the Optuna study, which shows candidates alone, with its sampler and pruner.
        table: all trials, as last read.
        lease: says whose the running trials are.
        layout_filter: says which layouts may be suggested, and what is trained for a suggestion.
        files: where the trials' files are.
        running: what this process has handed out.
        callback: hears of everything.
        plan: of the time; None where there is no limit.
    """

    spec: SearchSpec
    budget: Budget
    study: optuna.Study
    table: TrialTable
    lease: Lease | SoleLease
    layout_filter: LayoutFilter
    files: TrialFiles
    running: RunningTrials
    callback: SearchCallback
    plan: TimePlan | None = None

    @property
    def clock(self) -> SearchClock | None:
        """Says what the time still allows; None where there is no limit."""
        return self.plan.clock if self.plan else None
