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
from nas.search.callbacks import SearchCallback
from nas.search.open_search import open_search
from nas.search.search import Search
from nas.search.trial_queue import TrialAssignment
from nas.study.events import Event
from workers.backend import TrialEnd, tell
from workers.simulator.tabular_benchmark import RecordedRun, TabularBenchmark


@dataclass(frozen=True)
class Moment:
    """An event of the study and when it happened, in simulated seconds since the search began."""

    at_s: float
    event: Event


class Timeline(SearchCallback):
    """The simulated clock, and what happened by it.

    Attributes:
        clock_s: simulated seconds since the search began; set by the simulation.
        moments: every event of the search, in order.
    """

    def __init__(self) -> None:
        self.clock_s = 0.0
        self.moments: list[Moment] = []

    def on_event(self, event: Event) -> None:
        self.moments.append(Moment(self.clock_s, event))


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
        search: decides, as it does for real workers.
        table: has every layout of the search's space.
        workers: how many candidates train at once.
        timeline: a callback of the search.

    Attributes:
        busy_s: sum of the workers' seconds for candidates that came to an end.

    Raises:
        StudyError: the table cannot answer for this search; see `TabularBenchmark.check`.
    """

    def __init__(
        self, search: Search, table: TabularBenchmark, workers: int, timeline: Timeline
    ) -> None:
        table.check(search.spec)
        self.search, self.table, self.workers, self.timeline = search, table, workers, timeline
        self.busy_s = 0.0
        self._due: list[_Due] = []

    @property
    def clock_s(self) -> float:
        """Simulated seconds since the search began."""
        return self.timeline.clock_s

    @property
    def moments(self) -> list[Moment]:
        """Everything that has happened so far, in order."""
        return self.timeline.moments

    def run(self, until_s: float = math.inf) -> list[Moment]:
        """Drive the search to its end, or until that time.

        Returns:
            Everything that happened; `clock_s` is then when it ended.
        """
        self._fill()
        while self._due and self._due[0].at_s <= until_s:
            self.timeline.clock_s = self._due[0].at_s
            while self._due and self._due[0].at_s == self.clock_s:
                self._hear(heapq.heappop(self._due))
            self._fill()
        return self.moments

    def _fill(self) -> None:
        """Something for every free worker."""
        while len(self._due) < self.workers and not self.search.finished:
            if (assignment := self.search.ask()) is None:
                return
            self._start(assignment)

    def _start(self, assignment: TrialAssignment) -> None:
        run = self.table.run_of(assignment.layout, assignment.seed)
        reports = iter(run.reports(self.search.spec.recipe.epochs, self.table.device))
        self._push(assignment.number, self.clock_s, run, reports)

    def _push(
        self, number: int, begun_s: float, run: RecordedRun, rest: Iterator[EpochReport]
    ) -> None:
        report = next(rest, None)
        elapsed_s = report.elapsed_s if report else run.elapsed_s[-1]
        heapq.heappush(self._due, _Due(begun_s + elapsed_s, number, begun_s, run, rest, report))

    def _hear(self, due: _Due) -> None:
        message = due.report or TrialEnd("failed", due.run.fail_reason or "")
        if tell(self.search, due.number, message):
            self._push(due.number, due.begun_s, due.run, due.rest)
        else:
            self.busy_s += due.at_s - due.begun_s


def simulate(
    spec: SearchSpec,
    table: TabularBenchmark,
    workers: int,
    until_s: float = math.inf,
    storage: InMemoryStorage | None = None,
) -> Simulation:
    """Run a search in the memory of this process, without any database.

    Args:
        spec: the request, best made by `TabularBenchmark.spec`; its storage is not used.
        table, workers, until_s: see `Simulation`.
        storage: has the earlier studies that the request names; None where it names none.

    Raises:
        StudyError: the table cannot answer for this search.
    """
    timeline = Timeline()
    search = open_search(spec, table.facts, [timeline], storage or InMemoryStorage())
    simulation = Simulation(search, table, workers, timeline)
    simulation.run(until_s)
    return simulation
