"""The clock of a search with a time limit: whether another training may begin, or go on."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from nas.reports import EpochReport
from nas.search.forecast.runtime_model import CandidateCost

GRACE_SHARE = 0.1  # of the search's time, for what ends a little later than predicted
OUT_OF_TIME = "the time of the search is over"


class SearchClock:
    """Says what the time of a search still allows. What candidates have taken so far corrects the
    prediction.

    Args:
        search_s: seconds from now until the search is over; 0: nothing begins.
        cost: predicted, of a typical candidate.
        epochs: of a candidate.
        concurrent: trainings at a time.
        now: seconds since 1970.

    Attributes:
        ends_at: when the search is over, seconds since 1970.
        stop_at: when what still runs is stopped in the middle of an epoch.
    """

    def __init__(
        self,
        search_s: float,
        cost: CandidateCost,
        epochs: int,
        concurrent: int = 1,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.now, self.cost, self.epochs, self.concurrent = now, cost, epochs, concurrent
        self.ends_at = now() + search_s
        self.stop_at = self.ends_at + GRACE_SHARE * search_s
        self._epoch_s: dict[int, float] = {}

    @property
    def candidate_s(self) -> float:
        """Seconds that a candidate takes from its beginning to its end."""
        measured = list(self._epoch_s.values())
        epoch_s = statistics.fmean(measured) if measured else self.cost.epoch_s
        return self.cost.begin_s + self.epochs * epoch_s + self.cost.end_s

    def may_begin(self, beside: int = 0) -> bool:
        """Whether a training that begins now ends in time, and after it `beside` others do."""
        rounds = 1 + beside / self.concurrent
        return self.now() + rounds * self.candidate_s <= self.ends_at

    def hear(self, number: int, report: EpochReport) -> None:
        """Hear how long a trial has taken for its epochs so far."""
        trained_s = max(report.train_s, report.elapsed_s - self.cost.begin_s)
        self._epoch_s[number] = trained_s / report.epoch

    def may_go_on(self, number: int) -> bool:
        """Whether a trial can end its next epoch before it would be stopped in the middle of it."""
        return self.now() + self._epoch_s[number] <= self.stop_at
