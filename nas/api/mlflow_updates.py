"""What MLflow is told of a search: its events, and what its study knows, as updates of runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from nas.artifacts.history import COLUMNS, read_reports
from nas.artifacts.paths import trial_folders
from nas.reports import EpochReport
from nas.search.search import Search
from nas.study.events import Event
from nas.study.roles import role_of
from search_spaces.layout import Layout

RUNNING, WAITING = "RUNNING", "SCHEDULED"  # statuses of a run, in MLflow's words
FINISHED, KILLED, FAILED = "FINISHED", "KILLED", "FAILED"
STATUS = {
    "started": RUNNING,
    "requeued": WAITING,
    "halted": WAITING,
    "complete": FINISHED,
    "pruned": KILLED,
    "infeasible": KILLED,
    "failed": FAILED,
}  # by kind of event; the others leave it as it is
PARAMS = ("layout", "role", "replicate", "params", "flops", "memory_predicted_gib")


@dataclass(frozen=True)
class RunUpdate:
    """Something new about one training.

    Attributes:
        key: identifies the training in its study; that of a trial is its number.
        name: of its run, for people.
        params: what does not change any more, by name.
        reports: epochs.
        recorded: reads the epochs that were trained before, which an earlier process may have
            failed to tell.
        status: of the run, in MLflow's words.
        reason: of the status.
    """

    key: str
    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    reports: Sequence[EpochReport] = ()
    recorded: Callable[[], Sequence[EpochReport]] = tuple
    status: str | None = None
    reason: str | None = None


def event_update(event: Event, search: Search) -> RunUpdate:
    """Write an event of a trial as an update of its run."""
    started = event.kind == "started"
    return RunUpdate(
        key=str(event.number),
        name=f"{event.number} {event.what}",
        params=_params(event, search) if started else {},
        reports=(event.report,) if event.report else (),
        recorded=partial(recorded_reports, event.number, search) if started else tuple,
        status=STATUS.get(event.kind),
        reason=event.reason,
    )


def _params(event: Event, search: Search) -> dict[str, Any]:
    cost = search.budget.cost(Layout.parse(event.layout))
    return {
        "layout": event.layout,
        "role": event.role,
        "replicate": event.replicate,
        "params": cost.params,
        "flops": cost.flops,
        "memory_predicted_gib": search.predicted_gib(event.number),
    }


def trial_update(trial: FrozenTrial, search: Search) -> RunUpdate:
    """Write a trial that has ended as an update of its run: its end, and its epochs as far as they
    are in its files.
    """
    known = trial.user_attrs
    kind = {TrialState.COMPLETE: "complete", TrialState.FAIL: "failed"}.get(trial.state, "pruned")
    reason = known.get("infeasible_reason") or known.get("fail_reason")
    role, replicate = role_of(trial), known.get("replicate", 0)
    event = Event(kind, trial.number, known.get("layout", ""), role=role, replicate=replicate)
    heard = [r for r in recorded_reports(trial.number, search) if _is_known(r, trial)]
    params = {name: known[name] for name in PARAMS if name in known}
    update = event_update(event, search)
    return replace(update, params=params, reports=heard, reason=reason)


def _is_known(report: EpochReport, trial: FrozenTrial) -> bool:
    """Whether the study has heard of an epoch; a driver that was taken for dead may have trained
    more.
    """
    return str(report.epoch) in trial.user_attrs.get("losses", {})


def recorded_reports(number: int, search: Search) -> list[EpochReport]:
    """Read the epochs of a trial that its drivers have recorded in its files, in their order, each
    once; none where the files are gone or broken.
    """
    reports: dict[int, EpochReport] = {}
    for folder in trial_folders(search.files.root, number):
        try:
            reports |= {report.epoch: report for report in read_reports(folder)}
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return [reports[epoch] for epoch in sorted(reports)]


def epoch_metrics(report: EpochReport) -> dict[str, float]:
    """Give the figures of an epoch by name: the columns of `curves.csv`, and those of the test
    split; without those that it does not have.
    """
    figures = asdict(report) | asdict(report.metrics)
    named = {name: figures[name] for name in COLUMNS if name != "epoch"} | report.test_scores
    return {name: float(value) for name, value in named.items() if value is not None}


def study_params(search: Search) -> dict[str, Any]:
    """Give the keys of a request that a continued search cannot change, and the data in figures."""
    request = search.spec.to_dict()
    sections = ("detector", "recipe", "budget", "calibration")
    keys = {
        f"{section}.{key}": value
        for section in sections
        for key, value in request[section].items()
        if value not in (None, [])
    }
    facts = search.facts
    data = {
        "data.root": search.spec.data.root,
        "data.fingerprint": facts.fingerprint,
        "data.train_images": facts.train_images,
        "data.val_images": facts.val_images,
        "data.classes": facts.num_classes,
    }
    budget_gib = search.study.user_attrs["nas_budget_gib"]
    return {"space": request["space"].get("name"), **data, **keys, "budget_gib": budget_gib}


def study_tags(search: Search) -> dict[str, Any]:
    """Give the keys of a request that a continued search may change."""
    settings = search.spec.search
    named = ("trials", "sampler", "pruner", "seed", "replicates", "time_limit")
    values = {name: getattr(settings, name) for name in named}
    return {f"search.{name}": value for name, value in values.items() if value is not None}
