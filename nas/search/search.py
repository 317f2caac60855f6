"""A search as its drivers see it: the study is the truth, it decides what is trained next and keeps
everything that came of it.

A driver calls `ask`, trains what it is given, calls `report` after every epoch, and `fail`,
`infeasible`, `requeue` or `suspend` where the training ends otherwise than by its recipe. States of
trials mean what they say: COMPLETE ended by its recipe, PRUNED was stopped by the pruner or proved
too large for the budget (`infeasible_reason`), FAIL is an error and releases its layout. Trials
that a dead driver left RUNNING are handed out again first, under their own number, with their
checkpoint.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from nas.reports import DatasetSummary, EpochReport
from nas.search.equalizer import PatternFit
from nas.search.parts import SearchParts
from nas.search.trial_queue import TrialAssignment, TrialQueue
from nas.search.trial_recorder import TrialRecorder
from nas.study.events import note
from nas.study.optuna_internals import Storage
from nas.study.retry import retry_while_unreachable

NEVER_BEGUN = "the driver died, or the database undid its work, before it had chosen a layout"


class Search:
    """One search in its database, for the one process that drives it; made by
    `nas.search.open_search.open_search`.

    Methods are for one thread. Those that use the database repeat themselves while it is away, for
    two minutes.

    Args:
        parts: the parts that queue and recorder share.
        facts: the checked data set.
        storage: where the study is kept.
        queue: knows what is next.
        recorder: writes what came of it.

    Attributes:
        spec: the request.
        budget: the memory limit, and predictions.
        study: the Optuna study, which shows candidates alone.
        table: all trials, baselines and replicates among them, as last read.
        files: where the trials' files are.
        plan: of the time; None where there is no limit.
        clock: says what the time still allows; None where there is no limit.
    """

    def __init__(
        self,
        parts: SearchParts,
        *,
        facts: DatasetSummary,
        storage: Storage,
        queue: TrialQueue,
        recorder: TrialRecorder,
    ) -> None:
        self.spec, self.budget, self.facts = parts.spec, parts.budget, facts
        self.study, self.table, self.storage = parts.study, parts.table, storage
        self.files = parts.files
        self._lease, self._running, self._callback = parts.lease, parts.running, parts.callback
        self._queue, self._recorder = queue, recorder
        self.plan, self.clock = parts.plan, parts.clock

    @retry_while_unreachable
    def ask(self) -> TrialAssignment | None:
        """Get the next training, which is this driver's from then on; None where there is nothing
        to start now: see `finished` and `stop_reason`.
        """
        with self._lease.exclusive():
            self.table.read()
            if self.halted_reason or not self._queue.has_time:
                return None
            for left_behind in self._queue.left_behind():
                if adopted := self._queue.adopt(left_behind):
                    return adopted
                self._recorder.fail(left_behind.number, NEVER_BEGUN)
            return None if self._recorder.failed_reason else self._queue.next()

    @property
    @retry_while_unreachable
    def finished(self) -> bool:
        """Whether nothing runs here and nothing is left to start; other drivers may still be
        busy.
        """
        self.table.read()
        if self.halted_reason or not self._queue.has_time:
            return not self._running
        if self._running or self._queue.left_behind():
            return False
        return self._recorder.failed_reason is not None or self._queue.is_empty()

    @retry_while_unreachable
    def report(self, number: int, report: EpochReport, *, gpus: float = 0.0) -> bool:
        """Keep an epoch's results.

        Args:
            number: of the trial.
            report: of the epoch; one that is told again changes nothing.
            gpus: share of GPUs that trains the trial, for `gpu_s`.

        Returns:
            Whether the trial goes on: not after its last epoch, or when it was pruned, needs more
            than the budget or belongs to another driver by now.
        """
        return self._recorder.report(number, report, gpus=gpus)

    @retry_while_unreachable
    def fail(self, number: int, reason: str) -> None:
        """End a trial by an error; its layout may be tried again, `run.retries` times. Ten in a row
        end the search.
        """
        self._recorder.fail(number, reason)

    @retry_while_unreachable
    def infeasible(self, number: int, reason: str, peak_bytes: int) -> None:
        """End a trial that was measured to need `peak_bytes`, more than the budget: it is never the
        best, and its layout is never tried again.
        """
        self._recorder.infeasible(number, reason, peak_bytes)

    @retry_while_unreachable
    def requeue(self, number: int, reason: str) -> None:
        """Put a trial down whose worker died, perhaps through no fault of its own: it goes on from
        its checkpoint, `run.retries` times at most without another epoch; then it is a failure, and
        its layout is not tried again. Where ten workers in a row died before an epoch was trained
        of any trial, nothing more is started: see `halted_reason`.
        """
        self._recorder.requeue(number, reason)

    def put_down(self, number: int, reason: str) -> None:
        """Put a trial down, as it is, for the next driver: the time of this one is over."""
        self._recorder.put_down(number, reason)

    def suspend(self, number: int, reason: str) -> None:
        """Put a trial down, as it is, for the next driver, and start nothing more: what stops it
        would stop every other one. `halted_reason` says what.
        """
        self._recorder.suspend(number, reason)

    @property
    @retry_while_unreachable
    def ended(self) -> int:
        """Number of candidates that reached a worker and ended COMPLETE, PRUNED or infeasible."""
        self.table.read()
        return self.table.ended

    @property
    def running(self) -> int:
        """Number of trials that this process has handed out and not heard the end of."""
        return len(self._running)

    def predicted_gib(self, number: int) -> float | None:
        """Give the predicted peak of allocated memory of a running trial; None where it has none
        yet.
        """
        return self._running[number].attributes.get("memory_predicted_gib")

    def is_running(self, number: int) -> bool:
        """Whether this process has handed out a trial and not heard its end."""
        return number in self._running

    @property
    def stop_reason(self) -> str | None:
        """Why there are fewer candidates than asked for; None where there are not."""
        return self._recorder.failed_reason or self._queue.exhausted_reason

    @property
    def halted_reason(self) -> str | None:
        """Why nothing more can be started, though the search is not over; None where all is
        well.
        """
        return self._recorder.halted_reason

    @property
    def unsolved_patterns(self) -> list[PatternFit]:
        """In mode `equalize` the patterns of which no layout uses the budget, with the nearest
        layout of each.
        """
        return self._queue.unsolved_patterns

    def refusals(self) -> dict[str, Any]:
        """Count what was not trained, and why, by the names that `nas_refusals` has in
        `nas.study.schema`.
        """
        return self._queue.refusals()

    def lease(self) -> AbstractContextManager[None]:
        """Be known as a driver of the study while a block runs; see
        `nas.study.lease.Lease.held`.
        """
        return self._lease.held()

    def warn(self, text: str) -> None:
        """Say something that the results may suffer from."""
        self._callback.on_event(note(f"warning: {text}"))

    def on_away(self, reason: str, pause_s: float) -> None:
        """Say that the database does not answer, and that the call is repeated after a pause."""
        text = f"the database is away ({reason}); trying again in {pause_s} s"
        self._callback.on_event(note(text))
