"""The contract of a backend, which trains what a search decides, and how the end of a training
becomes the outcome of its trial.

A backend is a function or class that drives one open `nas.search.search.Search` to its end. There
are three: `workers.local` trains in this process, `workers.ray_tune` on Ray's workers,
`workers.simulator` replays recorded trainings. Each keeps to this:

Threads. One thread of one process, the driver, calls the search's methods; a worker never touches
the study. What a worker has to say travels to the driver as an `EpochReport` or a `TrialEnd`, both
plain JSON.

Ownership. A trial belongs to the backend from `Search.ask` on, until `Search.report` returns False
or the trial was ended by `fail`, `infeasible`, `requeue`, `suspend` or `put_down`. It then ends the
training, without another word about it. A trial that `ask` returned is trained, even after others
have ended the search. Only the worker that was given an assignment writes into its folder.

End. The backend returns when `Search.finished` is true. It then has no training left. A process
that dies is no error of the candidate: `requeue_after_death`.

Interrupts. `KeyboardInterrupt`, and every exception that the search's own methods raise, leave the
backend at once. Running trials stay RUNNING in the study, with the checkpoint that they last wrote;
the next driver adopts them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

from nas.errors import (
    DataError,
    OutOfMemory,
    OutOfTime,
    OutputError,
    ProcessDied,
    StudyError,
)
from nas.reports import EpochReport
from nas.search.search import Search
from nas.utils.formatting import gib, gib_text
from nas.utils.process_death import NO_MEMORY

# What would stop every other training, too: the disk, the data, the study.
ENDS_THE_SEARCH = (OutputError, DataError, StudyError)


@dataclass(frozen=True)
class TrialEnd:
    """How a training ended otherwise than by its recipe or its pruner.

    Attributes:
        outcome: `failed`: the candidate's own fault, which must not end the search; `infeasible`:
            it needs more memory than the budget; `suspended`: what ended it would end every other
            training, so the search ends with this reason and the trial waits for the next driver;
            `stopped`: the time of the search is over, and the trial waits for the next driver;
            `died`: a process that it needs died, perhaps by no fault of its own.
        reason: why, in words.
        peak_bytes: for `infeasible`, what had been allocated, in bytes.
    """

    outcome: Literal["failed", "infeasible", "suspended", "stopped", "died"]
    reason: str
    peak_bytes: int = 0

    @classmethod
    def of(cls, error: Exception) -> Self:
        """Decide what an exception of a training means for its trial."""
        if isinstance(error, OutOfMemory):
            return cls("infeasible", str(error), error.peak_bytes)
        if isinstance(error, OutOfTime):
            return cls("stopped", str(error))
        if isinstance(error, ENDS_THE_SEARCH):
            return cls("suspended", str(error))
        if isinstance(error, ProcessDied):
            return cls("died", str(error))
        return cls("failed", f"{type(error).__name__}: {error}")


def until_end(reports: Iterator[EpochReport]) -> Iterator[EpochReport | TrialEnd]:
    """Yield the reports of a training and, where it raises or stops before its last epoch, how it
    ended, as the last item.
    """
    try:
        for report in reports:
            yield report
            if report.last:
                return
        end = TrialEnd("failed", "the training stopped before its last epoch")
    except Exception as error:
        end = TrialEnd.of(error)
    yield end  # not above: there the error would keep what the training had on the GPU


def tell(
    search: Search, number: int, message: EpochReport | TrialEnd, *, gpus: float = 0.0
) -> bool:
    """Tell a search what its worker said of a trial.

    Args:
        search: that handed the trial out.
        number: of the trial.
        message: an epoch's report, or how the training ended.
        gpus: share of GPUs that trains the trial.

    Returns:
        Whether the trial goes on.
    """
    if isinstance(message, EpochReport):
        return search.report(number, message, gpus=gpus)
    if message.outcome == "infeasible":
        search.infeasible(number, message.reason, message.peak_bytes)
    elif message.outcome == "suspended":
        search.suspend(number, message.reason)
    elif message.outcome == "stopped":
        search.put_down(number, message.reason)
    elif message.outcome == "died":
        requeue_after_death(search, number, message.reason)
    else:
        search.fail(number, message.reason)
    return False


def requeue_after_death(search: Search, number: int, reason: str) -> None:
    """Put a trial back in the queue because a process that it needs died, and say what memory it
    was allowed where that was the likely cause.
    """
    if NO_MEMORY in reason:
        predicted = gib_text(search.predicted_gib(number))
        budget = gib_text(gib(search.budget.limit_bytes))
        reason += f"; the candidate's tensors: {predicted} GiB predicted, {budget} GiB allowed"
    search.requeue(number, reason)
