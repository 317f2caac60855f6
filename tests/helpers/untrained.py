"""A study that is driven without training: what tests of its decisions need."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import optuna
from optuna.storages import InMemoryStorage

from nas.config.spec import SearchSpec, load_spec
from nas.reports import CocoMetrics, DatasetSummary, EpochReport
from nas.search.budget import Budget
from nas.search.callbacks import SearchCallback
from nas.search.open_search import open_search
from nas.search.time_limit.plan import TimePlan
from nas.study.events import Event

FACTS = DatasetSummary("fingerprint", ("a", "b"), 64, 200, 16, 50, 9, (2, 3, 64, 96), {}, {})


def spec(tmp_path: Path, **flags: object) -> SearchSpec:
    return load_spec(
        None,
        {
            "data.root": "cells",
            "space": "tiny",
            "storage": f"sqlite:///{tmp_path}/nas.db",
            "run.output": str(tmp_path / "runs"),
            "recipe.epochs": 2,
            "search.trials": 3,
            "search.sampler": "random",
            "search.baselines": False,
            **flags,
        },
    )


class EventRecorder(SearchCallback):
    """Keeps the events that it hears of."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)


class Driver:
    """A study and the events it told of; in its database, or in memory."""

    def __init__(
        self,
        tmp_path: Path,
        facts: DatasetSummary = FACTS,
        memory: InMemoryStorage | None = None,
        plan: TimePlan | None = None,
        **flags: object,
    ) -> None:
        recorder = EventRecorder()
        self.events = recorder.events
        self.spec = spec(tmp_path, **flags)
        self.study = open_search(self.spec, facts, [recorder], memory, plan=plan)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def train(self, value: float = 0.5, epochs: int = 2, **changes: object) -> int:
        """One candidate to its end; returns its number."""
        assignment = self.study.ask()
        for epoch in range(1, epochs + 1):
            if not self.study.report(assignment.number, report(value, epoch, **changes)):
                break
        return assignment.number

    def trial(self, number: int) -> optuna.trial.FrozenTrial:
        self.study.table.read()
        return self.study.table[number]


def report(value: float, epoch: int, epochs: int = 2, **changes: object) -> EpochReport:
    metrics = CocoMetrics(
        value,
        value,
        value,
        None,
        value,
        value,
        0.1,
        0.2,
        0.3,
        None,
        0.3,
        0.3,
        {"a": value, "b": None},
    )
    made = EpochReport(
        epoch,
        epochs,
        1.5,
        0.1,
        metrics,
        20.0,
        10.0 * epoch,
        12.0 * epoch,
        None,
        "cpu",
        {"layers": 3},
    )
    return dataclasses.replace(made, **changes)


class AdjustableBudget(Budget):
    """A budget whose limit a test sets to the byte."""

    limit_bytes: int = 0
