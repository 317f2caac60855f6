"""Which layouts a search will train, as far as that is known before it: the sampler is asked,
without a study in a database.
"""

from __future__ import annotations

import optuna

from nas.search.baselines import equalized
from nas.search.budget import Budget
from nas.search.layout_filter import LayoutFilter
from nas.search.layout_sample import LayoutCost
from nas.search.prior_studies import prior_of
from nas.search.samplers import distributions
from nas.search.search_sampler import search_sampler
from search_spaces.layout import Layout

optuna.logging.set_verbosity(optuna.logging.WARNING)  # the study that is asked is nobody's concern
ASKED = 10  # suggestions that a sampler makes before it learns from results


def first_suggestions(budget: Budget) -> tuple[list[LayoutCost], int]:
    """What a new search trains before its sampler learns from results.

    Args:
        budget: of the search.

    Returns:
        The first layouts, at most `ASKED` of a sampler that learns, and the number of candidates
        that there will be in all.
    """
    search, taken, first = budget.spec.search, set[str](), list[LayoutCost]()
    tried = [Layout.parse(text) for text in search.try_first]
    listed = tried if search.try_only else []
    allowed = LayoutFilter(budget, lambda: taken, listed)
    sampler = search_sampler(budget, allowed, prior=prior_of(budget))
    study = optuna.create_study(sampler=sampler, directions=["maximize"] * len(search.objectives))
    wanted = search.trials if sampler.in_order else min(search.trials, ASKED)
    while len(first) < wanted and not allowed.exhausted():
        trial = study.ask(distributions(budget.space))
        layout = allowed.resolve(budget.space.decode(trial.params))
        assert layout
        for name, value in {"layout": str(layout), "flops": budget.cost(layout).flops}.items():
            trial.set_user_attr(name, value)
        taken.add(layout.layout_id)
        first.append(LayoutCost.of(layout, budget))
    return first, min(search.trials, len(budget.space)) if len(first) == wanted else len(first)


def baselines(budget: Budget) -> list[LayoutCost]:
    """The published backbones that a search trains beside its candidates, each once; none where the
    request wants none.
    """
    return (
        [LayoutCost.of(each.layout, budget) for each in equalized(budget)]
        if budget.spec.wants_baselines
        else []
    )
