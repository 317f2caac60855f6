"""The trials that this process has handed out and not heard the end of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import Trial

from nas.reports import EpochReport
from nas.study.events import Event
from nas.study.roles import CANDIDATE


@dataclass(frozen=True)
class RunningTrial:
    """One trial in the hands of this process.

    Attributes:
        trial: Optuna's handle, to report to.
        attributes: user attributes of the trial when it was handed out; empty while its layout has
            not been chosen.
        reported_epochs: epochs whose score Optuna has, which takes each once.
        losses: mean training loss of each epoch so far, by its number as text.
        val_losses: mean loss of the validation split likewise, where it is known and finite.
    """

    trial: Trial
    attributes: Mapping[str, Any] = field(default_factory=dict)
    reported_epochs: set[int] = field(default_factory=set)
    losses: dict[str, float] = field(default_factory=dict)
    val_losses: dict[str, float] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """Number of the trial in its study."""
        return self.trial.number

    @property
    def is_candidate(self) -> bool:
        """Whether the search chooses among trials like this one; a baseline or replicate is never
        pruned.
        """
        return bool(self.attributes.get("role", CANDIDATE) == CANDIDATE)

    def event(
        self,
        kind: str,
        *,
        report: EpochReport | None = None,
        reason: str | None = None,
        memory_predicted_bytes: int | None = None,
    ) -> Event:
        """Describe what happened to this trial; arguments as of `Event`."""
        return Event(
            kind,
            self.number,
            self.attributes.get("layout", ""),
            report,
            reason,
            memory_predicted_bytes,
            self.attributes.get("role", CANDIDATE),
            self.attributes.get("replicate", 0),
        )


class RunningTrials:
    """The running trials of this process by their numbers."""

    def __init__(self) -> None:
        self._by_number: dict[int, RunningTrial] = {}

    def add(self, running: RunningTrial) -> None:
        """Take a trial into this process's hands."""
        self._by_number[running.number] = running

    def remove(self, number: int) -> RunningTrial:
        """Give a trial out of this process's hands: it ended, or is for another one.

        Raises:
            KeyError: it is not in this process's hands.
        """
        return self._by_number.pop(number)

    def __getitem__(self, number: int) -> RunningTrial:
        return self._by_number[number]

    def __contains__(self, number: object) -> bool:
        return number in self._by_number

    def __len__(self) -> int:
        return len(self._by_number)
