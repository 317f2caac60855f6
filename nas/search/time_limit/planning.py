"""Planning a search with a time limit: a few layouts are measured, and the limit is divided by what
they take. A command with the limit of an earlier one goes on with that one's plan.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.trial import TrialState

from nas.config.spec import SearchSpec
from nas.data.splits import Splits
from nas.errors import StudyError
from nas.planning.lengthening import with_epochs
from nas.reports.forecast import Timing
from nas.search.budget import Budget
from nas.search.extra_trials import beside_candidates
from nas.search.forecast.benchmark import SCORED, STEPS, few_images, time_layouts
from nas.search.forecast.forecast import RAY_START_S, Slots, candidate_of, work_of
from nas.search.forecast.runtime_model import CandidateCost, CostModel
from nas.search.layout_sample import LayoutCost, uniform_sample
from nas.search.time_limit.clock import SearchClock
from nas.search.time_limit.division import LEAST_STEPS, Division, Wanted, divide
from nas.search.time_limit.plan import TimePlan, Typical, earlier_s
from nas.study.attributes import study_attributes
from nas.study.roles import is_candidate
from nas.utils.formatting import duration_text
from nas.utils.progress import CountProgress
from search_spaces.layout import Layout

MEASURE_SHARE = 0.05  # of the limit, in which more layouts than one are measured
FEW = (2, 6)  # training steps and scored images of a glance
WORKER_S = (10.0, 60.0)  # until a worker process of Ray has imported what it needs, within these


class PlannedTime(NamedTuple):
    """A request with the epochs that its time limit allows, and the plan of the time."""

    spec: SearchSpec
    plan: TimePlan


def plan_time(
    budget: Budget,
    splits: Splits,
    slots: Slots,
    study: optuna.Study | None,
    began_at: float,
    on_layout: CountProgress,
) -> PlannedTime:
    """Plan the time of a request with a limit.

    Args:
        budget: of the request.
        splits: the checked data.
        slots: where candidates will run.
        study: what the request goes on with; None where there is no study yet.
        began_at: when the command began, seconds since 1970.
        on_layout: told of every measurement.

    Raises:
        StudyError: the limit is too short for anything.
        UserError, CandidateError: as the training of a candidate.
    """
    start_s = time.time() - began_at
    spec, known = budget.spec, study_attributes(study) if study else {}
    limit_s, before_s = float(spec.search.time_limit or 0), earlier_s(study)
    ends_at, recorded = began_at + limit_s - before_s, known.get("nas_time", {})
    goes_on = recorded.get("limit_s") == limit_s or bool(recorded and ends_at <= time.time())
    if goes_on:
        division = _division(recorded["division"])
        typical = Typical.from_dict(recorded["typical"])
        until_s = recorded["search_until_s"]
    else:
        typical = _measured(budget, splits, slots, limit_s, on_layout)
        left_s = ends_at - time.time()
        wanted = _wanted(spec, study, slots)
        worker_s = 0.0 if slots.local else ray_start_s(start_s)
        division = divide(limit_s, left_s, typical.cost, wanted, worker_s)
        _check_room(division, typical, limit_s - left_s)
        until_s = limit_s - left_s + division.room_s
    spec = _with_recipe(spec, study, division, budget.facts.train_images)
    search_s = max(0.0, until_s - before_s - (time.time() - began_at))
    epochs = spec.recipe.epochs
    clock = SearchClock(
        search_s if division.room_s else 0.0, typical.cost, epochs, slots.concurrent
    )
    token = str(uuid.uuid4())
    return PlannedTime(
        spec, TimePlan(division, typical, clock, token, began_at, ends_at, until_s, goes_on)
    )


def _division(recorded: Mapping[str, float]) -> Division:
    try:
        return Division(**recorded)  # type: ignore[arg-type]
    except TypeError:
        raise StudyError(
            "the study says of its time limit what no search has written (nas_time): give it "
            "another limit"
        ) from None


def ray_start_s(own_start_s: float) -> float:
    """Predict when the first workers of Ray begin to train, seconds from its start: they import
    what this process has imported, several at a time.

    Args:
        own_start_s: seconds that this process has taken for that and to read the data.
    """
    least, most = WORKER_S
    return RAY_START_S + min(max(least, 2 * own_start_s), most)


def _wanted(spec: SearchSpec, study: optuna.Study | None, slots: Slots) -> Wanted:
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    trials = study.get_trials(deepcopy=False, states=ended) if study else []
    return Wanted(
        epochs=_recorded_epochs(study) or spec.recipe.epochs,
        epochs_are_free=study is None and "recipe.epochs" in spec.plan,
        trials=spec.search.trials,
        beside=beside_candidates(spec),
        concurrent=slots.concurrent,
        trained=sum(map(is_candidate, trials)),
        finish=spec.search.finish,
    )


def _measured(
    budget: Budget, splits: Splits, slots: Slots, limit_s: float, on_layout: CountProgress
) -> Typical:
    """What the layouts of a space take, by a glance at one of median FLOPs or, where there is time,
    by that, a large and a small one.
    """
    sample = uniform_sample(budget)
    middle, *others = (sample[round(share * (len(sample) - 1))] for share in (0.5, 0.9, 0.1))
    began_s = time.monotonic()
    timings = _timings(budget, splits, slots, [middle], on_layout, FEW)
    if 10 * (time.monotonic() - began_s) < MEASURE_SHARE * limit_s:
        timings = _timings(budget, splits, slots, [middle, *others], on_layout, (STEPS, SCORED))
    model, work = CostModel.fit(timings), work_of(budget.spec, splits)
    costs = [model(each.flops, each.memory_bytes, work) for each in sample]
    mean = np.mean([list(vars(cost).values()) for cost in costs], axis=0)
    tried = [Layout.parse(text) for text in budget.spec.search.try_first]
    return Typical(tried[0] if tried else middle.layout, CandidateCost(*mean.tolist()), work.steps)


def _timings(
    budget: Budget,
    splits: Splits,
    slots: Slots,
    chosen: Sequence[LayoutCost],
    on_layout: CountProgress,
    few: tuple[int, int],
) -> list[Timing]:
    timings, _ = time_layouts(
        [(candidate_of(budget, each), each.flops, each.memory_bytes) for each in chosen],
        few_images(splits, budget.spec.recipe.batch, *few),
        at_once=1,
        threads=slots.threads,
        on_timing=partial(on_layout, "speed"),
    )
    return timings


def _check_room(division: Division, typical: Typical, gone_s: float) -> None:
    """Refuse a limit in which not even a few steps could be trained and scored."""
    cost = typical.cost
    step_s = cost.train_s / typical.steps_per_epoch
    least_s = cost.begin_s + LEAST_STEPS * step_s + cost.epoch_s - cost.train_s + cost.end_s
    room_s = division.search_s + division.train_s
    if room_s < least_s:
        needed_s = gone_s + division.reserve_s + least_s
        raise StudyError(
            f"the time limit must be at least {duration_text(1.2 * needed_s)} here, where the "
            f"start took {duration_text(gone_s)}, a few steps and their scoring take "
            f"{duration_text(least_s)} and the bundle {duration_text(division.reserve_s)}; got "
            f"{duration_text(division.limit_s)}"
        )


def _recorded_recipe(study: optuna.Study | None) -> dict[str, Any]:
    known: dict[str, Any] = study_attributes(study).get("nas_spec", {}) if study else {}
    return known.get("recipe") or {}


def _recorded_epochs(study: optuna.Study | None) -> int | None:
    return _recorded_recipe(study).get("epochs")


def _with_recipe(
    spec: SearchSpec, study: optuna.Study | None, division: Division, train_images: int
) -> SearchSpec:
    """The request with as many epochs as the time allows, which a study keeps once it is there."""
    if "recipe.epochs" not in spec.plan:
        return spec
    epochs = _recorded_epochs(study) or division.epochs
    if epochs == spec.recipe.epochs:
        return spec
    why = f"{spec.recipe.epochs} without the time limit"
    return with_epochs(spec, epochs, train_images, why)
