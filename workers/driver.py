"""The driver of a search: check the data, open the study, hold its lease, let a backend train."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

from nas.config.spec import SearchSpec
from nas.data.splits import Splits
from nas.errors import MissingDependency, StudyError
from nas.planning.adaptation import adapt_to_data
from nas.reports import DatasetSummary
from nas.search.budget import Budget
from nas.search.callbacks import CallbackList, SearchCallback
from nas.search.event_logging import EventLogging
from nas.search.forecast.forecast_cache import note_forecast
from nas.search.open_search import open_budget, open_search
from nas.search.search import Search
from nas.search.time_limit.plan import TimeKeeping, TimePlan
from nas.study.provenance import recorded_study
from nas.study.storage import check_storage
from workers.local import run_local
from workers.ray_tune.session import ray_session
from workers.resources import TrialResources, slots_of, this_process
from workers.trial_config import TrialConfigBuilder


def run_search(
    spec: SearchSpec,
    callbacks: Sequence[SearchCallback] = (),
    *,
    local: bool,
    began_at: float | None = None,
) -> Search:
    """Run a search to its end, or continue one.

    Args:
        spec: the request.
        callbacks: told what happens, from the first image that is checked.
        local: train in this process, without Ray.
        began_at: from when on a time limit counts, seconds since 1970; None: from now on.

    Raises:
        UserError: what was asked for cannot be done; nothing has been trained and no study been
            made.
        StudyError: the search stopped before its end, and says why; the same call continues.
        KeyboardInterrupt: stopped by the user; the same call continues.
    """
    began_at = time.time() if began_at is None else began_at
    check_backend(spec, local=local)
    on_image = CallbackList(callbacks).on_image
    spec, splits, facts = adapt_to_data(spec, on_image)
    if not spec.search.time_limit:
        return run_checked(spec, splits, facts, callbacks, local=local)
    from nas.search.time_limit.planning import plan_time  # with PyTorch: layouts are measured

    budget = Budget(spec, facts)
    slots = slots_of(spec, budget.limit_bytes, local=local)
    study = recorded_study(spec)
    spec, plan = plan_time(budget, splits, slots, study, began_at, on_image)
    callbacks = (*callbacks, TimeKeeping(plan))
    return run_checked(spec, splits, facts, callbacks, local=local, plan=plan)


def check_backend(spec: SearchSpec, *, local: bool) -> None:
    """Find out before the data are read whether the database can be used, and Ray where it is
    wanted.

    Raises:
        UserError: one of them cannot be used.
    """
    check_storage(spec.storage)
    if not local and find_spec("ray") is None:
        raise MissingDependency("ray[tune] (or use --local)", "ray")


def run_checked(
    spec: SearchSpec,
    splits: Splits,
    facts: DatasetSummary,
    callbacks: Sequence[SearchCallback] = (),
    *,
    local: bool,
    plan: TimePlan | None = None,
) -> Search:
    """Run a search on data that have been checked; arguments and errors as of `run_search`.

    Args:
        spec: the request.
        splits: the data, as `nas.planning.adaptation.adapt_to_data` returns them.
        facts: the data in figures, from there, too.
        callbacks: told what happens.
        local: train in this process, without Ray.
        plan: of the time; None where there is no limit.
    """
    budget = open_budget(spec, facts)
    local = local or bool(plan and not plan.clock.may_begin())  # nothing to start Ray for
    log = EventLogging()
    with _workers(spec, budget.limit_bytes, local=local) as resources:
        search = open_search(spec, facts, (*callbacks, log), budget=budget, plan=plan)
        note_forecast(search.study, spec, facts, local)
        with search.lease(), log.during(search):
            CallbackList(callbacks).on_start(search)
            if resources.warning:
                search.warn(resources.warning)
            _train(search, TrialConfigBuilder.prepare(search, splits), resources, local=local)
            if search.halted_reason:
                raise StudyError(
                    f"{search.halted_reason}. Nothing is lost: once that is mended, the same "
                    "command goes on"
                )
    return search


@contextmanager
def _workers(spec: SearchSpec, budget_bytes: int, *, local: bool) -> Iterator[TrialResources]:
    """Ray, unless this process trains, and what each trial gets. Started before there is a study:
    what Ray or its machines refuse leaves nothing behind.
    """
    if local:
        yield this_process(budget_bytes)
        return
    with ray_session(spec, budget_bytes) as resources:
        yield resources


def _train(
    search: Search, configs: TrialConfigBuilder, resources: TrialResources, *, local: bool
) -> None:
    if local:
        run_local(search, configs)
        return
    from workers.ray_tune.tuner import run_with_ray

    run_with_ray(search, configs, resources)
