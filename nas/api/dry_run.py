"""What a search would choose from and what it would take, before anything is trained."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from nas.config.spec import SearchSpec
from nas.data.splits import Splits
from nas.errors import CandidateError, StudyError
from nas.planning.adaptation import adapt_to_data, plan_of
from nas.planning.plan import Plan
from nas.reports.forecast import SearchForecast
from nas.search.baselines import equalized
from nas.search.budget import Budget
from nas.search.forecast.forecast import forecast
from nas.search.forecast.forecast_cache import remember
from nas.search.preview import preview
from nas.search.time_limit.division import Division
from nas.search.time_limit.planning import plan_time
from nas.study.provenance import recorded_study
from nas.utils.formatting import percent
from nas.utils.progress import CountProgress
from workers.resources import runs_elsewhere, slots_of


@dataclass(frozen=True)
class DryRun:
    """A search as it would be.

    Args:
        preview: what it chooses from, as plain JSON (see `nas.search.preview.preview`), and
            `baselines`, the networks that are trained for comparison.
        cost: what it will take; None where that was not measured or nothing fits into the budget.
        plan: what the data decide of the request, and what is to be known about them.
        division: of the time limit, which stands in the place of the cost; None without a limit.
    """

    preview: dict[str, Any]
    cost: SearchForecast | None
    plan: Plan
    division: Division | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        cost = self.cost.to_dict() if self.cost else None
        division = self.division.to_dict() if self.division else None
        return {**self.preview, "cost": cost, "plan": self.plan.to_dict(), "time": division}


def dry_run(spec: SearchSpec, on_image: CountProgress, *, local: bool, timing: bool) -> DryRun:
    """Find out what a search would choose from and what it would take.

    Args:
        spec: the request.
        on_image: is told of every image that is checked and every layout that is looked at.
        local: the search would run without Ray.
        timing: measure a few layouts. The forecast is kept on this machine, for the search of the
            same request.

    Raises:
        UserError: the data cannot be used, the request asks for more than this machine has, or a
            candidate cannot be trained.
    """
    asked, began_at = spec, time.time()
    spec, splits, facts = adapt_to_data(asked, on_image)
    budget = Budget(spec, facts)
    shown = preview(budget, on_image)
    shown["baselines"] = (
        [each.to_dict() for each in equalized(budget)] if spec.wants_baselines else []
    )
    plan = plan_of(asked, splits.train)
    if not timing:
        return DryRun(shown, None, plan)
    if spec.search.time_limit:
        division = _division(budget, splits, on_image, began_at, local=local)
        return DryRun(shown, None, plan, division)
    return DryRun(shown, _forecast(budget, splits, on_image, local=local), plan)


def _division(
    budget: Budget, splits: Splits, on_layout: CountProgress, began_at: float, *, local: bool
) -> Division:
    """How the search that is planned would divide its time."""
    slots = slots_of(budget.spec, budget.limit_bytes, local=local)
    study = recorded_study(budget.spec)
    return plan_time(budget, splits, slots, study, began_at, on_layout).plan.division


def _forecast(
    budget: Budget, splits: Splits, on_layout: CountProgress, *, local: bool
) -> SearchForecast | None:
    spec = budget.spec
    slots = slots_of(spec, budget.limit_bytes, local=local)
    try:
        predicted = forecast(budget, splits, slots, on_layout)
    except CandidateError as error:
        raise StudyError(
            f"a layout could not be measured: {error}; --no-timing leaves the measurement out"
        ) from None
    if predicted is None:
        return None
    remember(spec, budget.facts, local, predicted)
    warning = [f"warning: {slots.warning}"] if slots.warning else []
    return replace(predicted, notes=(*warning, *_notes(spec, predicted)))


def _notes(spec: SearchSpec, cost: SearchForecast) -> list[str]:
    """Sentences on how to read a forecast."""
    notes = [
        "candidates of this space differ: the standard deviation of their time is "
        f"{percent(cost.candidate_s_spread)} %"
    ]
    if spec.search.pruner in ("median", "multifidelity"):
        notes.append(
            f"what the {spec.search.pruner} pruner stops depends on the scores: the range is from "
            "all that it can stop to nothing"
        )
    if spec.search.pruner == "hyperband":
        whom = "a candidate of median FLOPs" if spec.search.prune_at == "cost" else "a candidate"
        notes.append(
            f"epochs are those that Hyperband is expected to leave {whom}, if scores come in "
            "random order"
        )
    if cost.epochs_are_a_limit:
        notes.append("the schedule ends by itself: epochs and times are the most that it can take")
    if runs_elsewhere(spec):
        notes.append(
            "measured on this machine, one candidate alone; those of the cluster may be faster or "
            "slower"
        )
    return notes
