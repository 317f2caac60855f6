"""The backend that trains nothing: it replays a table on a simulated clock, for a study that does
not know the difference.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass

from optuna.storages import InMemoryStorage

from nas.config.spec import SearchSpec
from nas.reports import EpochReport
from nas.search.search import Search, TrialAssignment
from nas.study.events import Event
from workers.simulator.tabular_benchmark import RecordedRun, TabularBenchmark


@dataclass(frozen=True)
class Moment:
    """An event of the study and when it happened, in simulated seconds since the search began."""

    at_s: float
    event: Event


@dataclass(order=True)
class _Due:
    """What a worker will say next. What is due at the same time is said in the order of the trials'
    numbers.
    """

    at_s: float
    number: int
    begun_s: float
    run: RecordedRun
    rest: Iterator[EpochReport]
    report: EpochReport | None  # None: it fails


class Simulation:
    """A search whose workers look their trainings up.

    A worker is busy with a candidate for the seconds that the table has, and takes the next one in
    the moment in which it is free; choosing takes no time. Of what happens in one moment all
    reports are heard first, in the order of the trials, then every free worker is given something.

    Args:
        study: decides, as it does for real workers.
        table: has every layout of the study's space.
        workers: how many candidates train at once.

    Raises:
        StudyError: the table cannot answer for this study; see `TabularBenchmark.check`.
    """

    def __init__(self, study: Search, table: TabularBenchmark, workers: int) -> None:
        table.check(study.spec)
        self.study, self.table, self.workers = study, table, workers
        self.clock_s = self.busy_s = 0.0
        self.moments: list[Moment] = []
        self._due: list[_Due] = []
        self._tell = study.on_event
        study.on_event = self._heard

    def run(self, until_s: float = math.inf) -> list[Moment]:
        """Drive the study to its end, or until that time. Returns everything that happened;
        `clock_s` is then when it ended, `busy_s` the sum of the workers' seconds for candidates
        that came to an end.
        """
        self._fill()
        while self._due and self._due[0].at_s <= until_s:
            self.clock_s = self._due[0].at_s
            while self._due and self._due[0].at_s == self.clock_s:
                self._hear(heapq.heappop(self._due))
            self._fill()
        return self.moments

    def _fill(self) -> None:
        """Something for every free worker."""
        while len(self._due) < self.workers and not self.study.finished:
            if (assignment := self.study.ask()) is None:
                return
            self._start(assignment)

    def _start(self, assignment: TrialAssignment) -> None:
        run = self.table.run_of(assignment.layout, assignment.seed)
        reports = iter(run.reports(self.study.spec.recipe.epochs, self.table.device))
        self._push(assignment.number, self.clock_s, run, reports)

    def _push(
        self, number: int, begun_s: float, run: RecordedRun, rest: Iterator[EpochReport]
    ) -> None:
        report = next(rest, None)
        elapsed_s = report.elapsed_s if report else run.elapsed_s[-1]
        heapq.heappush(self._due, _Due(begun_s + elapsed_s, number, begun_s, run, rest, report))

    def _hear(self, due: _Due) -> None:
        if due.report is None:
            self.study.fail(due.number, due.run.fail_reason or "")
        elif self.study.report(due.number, due.report):
            self._push(due.number, due.begun_s, due.run, due.rest)
            return
        self.busy_s += due.at_s - due.begun_s

    def _heard(self, event: Event) -> None:
        self.moments.append(Moment(self.clock_s, event))
        self._tell(event)


def simulate(
    spec: SearchSpec, table: TabularBenchmark, workers: int, until_s: float = math.inf
) -> Simulation:
    """Run a search in the memory of this process, without any database.

    Args:
        spec: the request, best made by `TabularBenchmark.spec`; its storage is not used.
        table, workers, until_s: see `Simulation`.

    Raises:
        StudyError: the table cannot answer for this search.
    """
    simulation = Simulation(Search(spec, table.facts, storage=InMemoryStorage()), table, workers)
    simulation.run(until_s)
    return simulation
