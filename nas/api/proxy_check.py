"""Whether the recipe of a search ranks layouts as a fuller training does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from nas.config.spec import SearchSpec
from nas.data.batch_shapes import largest_batch_shape
from nas.data.splits import Splits
from nas.planning.adaptation import adapt_to_data
from nas.reports import DatasetSummary
from nas.search.budget import Budget
from nas.search.proxy.layouts import choose_layouts
from nas.search.proxy.studies import (
    FULL,
    PROXY,
    ProxyCheck,
    chosen_before,
    compared,
    outcomes,
    record,
    request_of,
    store,
)
from nas.search.search import Search
from nas.utils.progress import CountProgress
from search_spaces.layout import Layout

RunSearch = Callable[[SearchSpec, Splits, DatasetSummary], Search]


@dataclass(frozen=True)
class ProxyCheckPlan:
    """What a check trains.

    Args:
        request: the search whose recipe is the proxy.
        fuller: the same request with the fuller recipe.
        splits: the checked data of both.
        facts, fuller_facts: the data in figures; their largest batches differ.
        layouts: ascending in FLOPs; all fit into the budget by both recipes.
    """

    request: SearchSpec
    fuller: SearchSpec
    splits: Splits
    facts: DatasetSummary
    fuller_facts: DatasetSummary
    layouts: list[Layout]


def plan_proxy_check(
    request: SearchSpec, fuller: SearchSpec, count: int, on_image: CountProgress
) -> ProxyCheckPlan:
    """Check the data and choose the layouts; those of an earlier check of the same study are among
    them.

    Args:
        request: the search whose recipe is the proxy.
        fuller: the same request with the fuller recipe (see `nas.search.proxy.studies.fuller`).
        count: at least as many layouts, if the space has them.
        on_image: is told of every image that is checked.

    Raises:
        UserError: the data cannot be used, or fewer than two layouts fit into the budget.
    """
    request, splits, facts = adapt_to_data(request, on_image)
    # Without masks, where the data have none.
    fuller = fuller.model_copy(update={"detector": request.detector})
    batch_shape = largest_batch_shape(splits.train.images, fuller.recipe, fuller.run.processes)
    fuller_facts = replace(facts, batch_shape=batch_shape)
    budgets = Budget(request, facts), Budget(fuller, fuller_facts)
    layouts = choose_layouts(*budgets, count, chosen_before(request))
    return ProxyCheckPlan(request, fuller, splits, facts, fuller_facts, layouts)


def run_proxy_check(plan: ProxyCheckPlan, run: RunSearch) -> tuple[ProxyCheck, list[str]]:
    """Train the layouts by both recipes, as two studies, and compare the rankings; what was trained
    before is not trained again.

    Args:
        plan: what to train.
        run: runs a search on checked data to its end (see `workers.driver.run_checked`).

    Returns:
        The check, and the names of the studies that keep it in `nas_proxy_check`.

    Raises:
        StudyError: fewer than two layouts were completed by both recipes.
    """
    proxy = run(request_of(plan.request, PROXY, plan.layouts), plan.splits, plan.facts)
    proxies, left_out = outcomes(proxy, plan.layouts)
    full = run(request_of(plan.fuller, FULL, list(proxies)), plan.splits, plan.fuller_facts)
    fulls, left_out_later = outcomes(full, list(proxies))
    check = record(compared(proxies, fulls), proxy, full, left_out | left_out_later)
    return check, store(check, plan.request, (proxy, full))
