"""What a watcher of a search is told."""

from __future__ import annotations

from dataclasses import dataclass

from nas.reports import EpochReport
from nas.study.roles import CANDIDATE, REPLICATE, role_label


@dataclass(frozen=True)
class Event:
    """Its `kind` is one of

    `started`, `epoch`, `complete`, `pruned`, `failed`, `infeasible`: as the states of trials say;
    `requeued`: its worker died; `lost`: another driver has it; `halted`: the disk is full, or an
        image has become unreadable;
    `note`: of no trial, something to know, while the database is away for example.

    `role` and `replicate` are those of the trial, see `nas.study.schema`.
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
        """The layout, and what it is trained for where that is not the search itself."""
        words = role_label(self.role, self.replicate).removeprefix(f"{REPLICATE}, ")
        return self.layout if self.role == CANDIDATE else f"{self.layout} ({words})"
