"""What a watcher of a search is told."""

from __future__ import annotations

from dataclasses import dataclass

from nas.records import EpochReport


@dataclass(frozen=True)
class Event:
    """Its `kind` is one of

    `started`, `epoch`, `complete`, `pruned`, `failed`, `infeasible`: as the states of trials say;
    `requeued`: its worker died; `lost`: another driver has it; `halted`: the disk is full, or an image has become unreadable;
    `note`: of no trial, something to know, while the database is away for example.
    """

    kind: str
    number: int
    layout: str
    report: EpochReport | None = None
    reason: str | None = None
    memory_predicted_bytes: int | None = None
