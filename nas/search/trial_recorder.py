"""What came of the trials that were handed out, written into the study."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from nas.reports import EpochReport, calibration_warning
from nas.search.memory_correction import correct_predictions
from nas.search.objectives import objective_values
from nas.search.parts import SearchParts
from nas.search.running import RunningTrial
from nas.search.time_limit.clock import OUT_OF_TIME
from nas.study.events import note
from nas.study.leaderboard import TOP, pareto_front, ranked
from nas.study.lease import LostTrialError
from nas.study.trials import MEASURED
from nas.utils.formatting import gib

FAILS_IN_A_ROW = DEATHS_IN_A_ROW = 10


Given = ParamSpec("Given")


def _of_own_trial(
    method: Callable[Concatenate[TrialRecorder, int, Given], bool | None],
) -> Callable[Concatenate[TrialRecorder, int, Given], bool]:
    """Decorate a method that writes of the trial with a number, so that nothing is written of one
    that another driver has, or has ended: from the first look on until the last transaction. It is
    false then, and where the method returns nothing.
    """

    @wraps(method)
    def guarded(
        self: TrialRecorder, number: int, /, *args: Given.args, **kwargs: Given.kwargs
    ) -> bool:
        if self.is_lost(number):
            return False
        try:
            with self.lease.fenced(number):
                return bool(method(self, number, *args, **kwargs))
        except (LostTrialError, UpdateFinishedTrialError):
            self.lose(number)
            return False

    return guarded


class TrialRecorder:
    """Writes what came of the trials of this process. Whatever comes of a trial that another driver
    has taken over meanwhile does not count.

    Args:
        parts: the parts of the search.

    Attributes:
        failed_reason: that too many failed in a row, so that nothing more is started; None where
            they did not.
        halted_reason: why nothing more can be started until it is mended; None where all is well.
    """

    def __init__(self, parts: SearchParts) -> None:
        self.spec, self.budget, self.study = parts.spec, parts.budget, parts.study
        self.table, self.lease, self.layout_filter = parts.table, parts.lease, parts.layout_filter
        self.files, self.running, self.callback = parts.files, parts.running, parts.callback
        self.clock = parts.clock
        self.failed_reason: str | None = None
        self.halted_reason: str | None = None
        self._worker_deaths: Counter[int] = Counter()  # of each trial since its last epoch
        self._deaths_in_a_row = 0  # without an epoch of any trial
        self._warned = False

    @_of_own_trial
    def report(self, number: int, report: EpochReport, *, gpus: float) -> bool:
        """Write an epoch's results, and end the trial where that was its last; returns whether it
        goes on. See `Search.report`.
        """
        running = self.running[number]
        if str(report.epoch) not in running.losses:
            self._worker_deaths[number] = self._deaths_in_a_row = 0
        self._report_score(running, report)
        if self.clock:
            self.clock.hear(number, report)
        peak_bytes = report.memory_peak_bytes
        over = peak_bytes is not None and peak_bytes > self.budget.limit_bytes
        running.losses[str(report.epoch)] = report.loss
        if report.val_loss is not None:
            running.val_losses[str(report.epoch)] = report.val_loss
        values = self._epoch_attributes(number, report, gpus)
        if report.last and not over:
            values["checkpoint"] = str(self.files.weights(number))
        self.table.set(running.trial, **values)
        self._warn(running, report)
        self.callback.on_event(running.event("epoch", report=report))
        if over:
            self._end_over_budget(number, peak_bytes or 0)
        elif report.last:
            self._complete(number, report, values)
        elif self._may_be_pruned(running) and running.trial.should_prune():
            self._end(number, TrialState.PRUNED)
            self.callback.on_event(running.event("pruned"))
        elif self.clock and not self.clock.may_go_on(number):
            self.put_down(number, OUT_OF_TIME)
        return number in self.running

    @_of_own_trial
    def fail(self, number: int, reason: str) -> None:
        """End a trial by an error; see `Search.fail`."""
        self._fail(number, reason)

    @_of_own_trial
    def infeasible(self, number: int, reason: str, peak_bytes: int) -> None:
        """End a trial that needs more than the budget; see `Search.infeasible`."""
        self._end_infeasible(number, reason, peak_bytes)

    @_of_own_trial
    def requeue(self, number: int, reason: str) -> None:
        """Put a trial down whose worker died, to be handed out again; see `Search.requeue`."""
        self._worker_deaths[number] += 1
        self._deaths_in_a_row += 1
        if self._deaths_in_a_row >= DEATHS_IN_A_ROW:
            self.suspend(
                number,
                f"{self._deaths_in_a_row} worker processes in a row died before an epoch was "
                f"trained, the last: {reason}",
            )
            return
        if (deaths := self._worker_deaths[number]) > self.spec.run.retries:
            self.table.set(self.running[number].trial, worker_deaths=deaths)
            self._fail(number, f"{reason}, {deaths} times")
            return
        self.callback.on_event(self.running.remove(number).event("requeued", reason=reason))

    def suspend(self, number: int, reason: str) -> None:
        """Put a trial down, as it is, and start nothing more; see `Search.suspend`."""
        self.halted_reason = reason
        self.put_down(number, reason)

    def put_down(self, number: int, reason: str) -> None:
        """Put a trial down, as it is, for the next driver; see `Search.put_down`."""
        self.callback.on_event(self.running.remove(number).event("halted", reason=reason))

    def is_lost(self, number: int) -> bool:
        """Whether another driver has the trial: this one was taken for dead."""
        if number not in self.running:
            return True
        if self.lease.owns(number):
            return False
        self.lose(number)
        return True

    def lose(self, number: int) -> None:
        """Forget a trial that another driver has."""
        if number in self.running:
            lost = self.running.remove(number)
            self.callback.on_event(lost.event("lost", reason="taken over by another driver"))

    @property
    def _single_objective(self) -> bool:
        return len(self.spec.search.objectives) == 1

    def _may_be_pruned(self, running: RunningTrial) -> bool:
        return self._single_objective and running.is_candidate

    def _warn(self, running: RunningTrial, report: EpochReport) -> None:
        """Say what is wrong with the calibration, of the first trial that it is wrong of."""
        warning = "" if self._warned else calibration_warning(report.calibration)
        if warning:
            self._warned = True
            self.callback.on_event(note(f"warning: trial {running.number}: {warning}"))

    def _report_score(self, running: RunningTrial, report: EpochReport) -> None:
        """Tell Optuna, which takes intermediate scores of a single objective, each epoch once."""
        if self._single_objective and report.epoch not in running.reported_epochs:
            running.trial.report(report.metrics.map or 0.0, report.epoch)
            running.reported_epochs.add(report.epoch)

    def _epoch_attributes(self, number: int, report: EpochReport, gpus: float) -> dict[str, Any]:
        peak_bytes = report.memory_peak_bytes
        return {
            **report.kept.precisions(),
            "epochs": report.epoch,
            "losses": dict(self.running[number].losses),
            "val_losses": dict(self.running[number].val_losses),
            "kept_epoch": report.kept_epoch,
            "fps": report.fps,
            "train_s": report.train_s,
            "gpu_s": report.elapsed_s * gpus,
            "device": report.device,
            "memory_peak_gib": None if peak_bytes is None else gib(peak_bytes),
            "calibration": report.calibration,
            "hardware": report.hardware,
            **report.test_scores,
        }

    def _complete(self, number: int, report: EpochReport, values: dict[str, Any]) -> None:
        running = self.running[number]
        if report.memory_peak_bytes is not None:
            excess_bytes = report.memory_peak_bytes - self.budget.limit_bytes
            self.table.constrain(running.trial, MEASURED, excess_bytes)
        attributes = {**running.attributes, **values}
        scores = objective_values(self.spec.search.objectives, attributes)
        self._end(number, TrialState.COMPLETE, scores)
        correct_predictions(self.table, self.budget, self.layout_filter)
        self.callback.on_event(running.event("complete", report=report))

    def _end_over_budget(self, number: int, peak_bytes: int) -> None:
        needs_gib, limit_gib = gib(peak_bytes), gib(self.budget.limit_bytes)
        reason = f"needs {needs_gib} GiB, the budget is {limit_gib} GiB"
        self._end_infeasible(number, reason, peak_bytes)

    def _end_infeasible(self, number: int, reason: str, peak_bytes: int) -> None:
        running = self.running[number]
        self.table.set(running.trial, infeasible_reason=reason, memory_peak_gib=gib(peak_bytes))
        excess_bytes = max(peak_bytes - self.budget.limit_bytes, 1)
        self.table.constrain(running.trial, MEASURED, excess_bytes)
        self._end(number, TrialState.PRUNED)
        self.callback.on_event(running.event("infeasible", reason=reason))

    def _fail(self, number: int, reason: str) -> None:
        running = self.running[number]
        self.table.set(running.trial, fail_reason=reason)
        self._end(number, TrialState.FAIL)
        self.callback.on_event(running.event("failed", reason=reason))
        if self.table.fails_in_a_row() >= FAILS_IN_A_ROW:
            self.failed_reason = (
                f"{FAILS_IN_A_ROW} candidates in a row failed, the last with: {reason}"
            )

    def _end(self, number: int, state: TrialState, values: list[float] | None = None) -> None:
        self.study.tell(number, values, state, skip_if_finished=True)
        self.table.read()
        self._drop_files(number)
        if state != TrialState.COMPLETE:
            self.files.drop_result(number)  # of its best epoch
        self.running.remove(number)

    def _drop_files(self, number: int) -> None:
        """Keep checkpoints of running trials, and weights and drawn detections of the best few and
        of the Pareto front.
        """
        self.files.drop_checkpoints(number)
        kept = max(self.spec.run.keep_best, TOP if self.spec.search.replicates > 1 else 1)
        front = set() if self._single_objective else pareto_front(self.study)
        dropped = [t for t in ranked(self.table.trained)[kept:] if t.number not in front]
        if self.running[number].attributes.get("replicate"):
            dropped.append(self.table[number])
        for trial in dropped:
            self.files.drop_result(trial.number)
