"""The sampler of a search, by its request."""

from __future__ import annotations

from nas.search.budget import Budget
from nas.search.layout_filter import LayoutFilter
from nas.search.multifidelity.prior import Prior
from nas.search.multifidelity.sampler import MultiFidelitySampler
from nas.search.samplers import BudgetedSampler, make_sampler
from search_spaces.layout import Layout


def search_sampler(
    budget: Budget, allowed: LayoutFilter, started: int = 0, prior: Prior | None = None
) -> BudgetedSampler:
    """Make the sampler that a request names.

    Args:
        budget: of the search, with its request.
        allowed: the filter.
        started: candidates that the study has already; they move the seed, so that a resumed search
            does not suggest the same again.
        prior: what earlier studies say of the space.
    """
    search = budget.spec.search
    if allowed.listed:
        return BudgetedSampler(None, allowed, [])
    first = [Layout.parse(text) for text in search.try_first]
    if search.sampler != "multifidelity":
        return BudgetedSampler(make_sampler(search.sampler, search.seed + started), allowed, first)
    return MultiFidelitySampler(
        allowed,
        first,
        flops=lambda layout: budget.cost(layout).flops,
        epochs=budget.spec.recipe.epochs,
        trials=search.trials,
        seed=search.seed,
        prior=prior,
    )
