"""Events: what is told of a running search, to terminals, logs and whoever else listens."""

from __future__ import annotations

from dataclasses import dataclass

from nas.reports import EpochReport
from nas.study.roles import CANDIDATE, REPLICATE, role_label


@dataclass(frozen=True)
class Event:
    """Something that happened in a search.

    Attributes:
        kind: one of
            `started`, `epoch`, `complete`, `pruned`, `failed`, `infeasible`: as the states of
            trials say;
            `requeued`: the trial's worker died; `lost`: another driver has it; `halted`: the disk
            is full, or an image has become unreadable;
            `note`: of no trial, something to know, while the database is away for example.
        number: of the trial; -1 for a note.
        layout: of the trial; empty where it has none yet.
        report: the results of the epoch, for `epoch` and `complete`.
        reason: why, in words; of a note, its text.
        memory_predicted_bytes: predicted peak of allocated GPU memory, for `started`.
        role: of the trial, see `nas.study.roles`.
        replicate: which training of the layout it is; 0 is the first.
    """

    kind: str
    number: int
    layout: str
    report: EpochReport | None = None
    reason: str | None = None
    memory_predicted_bytes: int | None = None
    role: str = CANDIDATE
    replicate: int = 0

    @property
    def what(self) -> str:
        """Name the layout, and what it is trained for where that is not the search itself:
        `T2-T2-T6-T2 (baseline)`.
        """
        words = role_label(self.role, self.replicate).removeprefix(f"{REPLICATE}, ")
        return self.layout if self.role == CANDIDATE else f"{self.layout} ({words})"


def note(text: str) -> Event:
    """Make an event that concerns no trial."""
    return Event("note", -1, "", reason=text)
