"""Every sampler behind the filter: only layouts that fit and were not trained, no trial for a
refusal, the space to its end.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import optuna
import pytest

from nas.config.choices import SamplerName
from nas.search.equalizer import Equalizer
from nas.search.layout_filter import LayoutFilter
from nas.search.multifidelity.prior import EarlierStudy, Prior, Trainings
from nas.search.multifidelity.sampler import MultiFidelitySampler
from nas.search.samplers import BudgetedSampler, distributions, make_sampler
from search_spaces.layout import Layout
from search_spaces.loading import load_space
from search_spaces.space import SearchSpace


def cost(layout: Layout) -> int:
    """Grows with every depth, as memory does."""
    return sum(
        depth * (3 if stage.kind == "T" else 2) * stage.width
        for depth, stage in zip(layout.depths, layout.stages, strict=True)
    )


SAMPLERS = (*get_args(SamplerName), "multifidelity with a prior")


def prior_for(space: SearchSpace) -> Prior:
    """What a study of forty layouts of another space says, whose best ones were the deepest."""
    layouts = list(itertools.islice(load_space("scales").shuffled(0), 40))
    scores = np.array([float(layout.depths[2]) for layout in layouts])
    scores = (scores - scores.mean()) / scores.std()
    earlier = EarlierStudy("e", Trainings(layouts, [*map(cost, layouts)]), scores, np.zeros(40))
    sample = list(itertools.islice(space.shuffled(0), 60))
    return Prior([earlier], Trainings(sample, [*map(cost, sample)]))


class Search:
    """Ask and tell with a filter, as a study does it; its own budget."""

    def __init__(
        self,
        space: SearchSpace,
        sampler: str,
        budget: int,
        first: tuple[str, ...] = (),
        equalizer: Equalizer | None = None,
    ) -> None:
        self.asked: list[Layout] = []
        self.predicted: list[Layout] = []
        self.space, self.limit_bytes, self.equalizer = space, budget, equalizer
        self.caps: Any = SimpleNamespace(met=lambda layout: True, confirmed=lambda layout: True)
        self.filter = LayoutFilter(self, self.taken)
        tried = [Layout.parse(text) for text in first]
        if sampler.startswith("multifidelity"):
            prior = prior_for(space) if sampler == SAMPLERS[-1] else None
            sampler_: BudgetedSampler = MultiFidelitySampler(
                self.filter, tried, flops=cost, epochs=3, trials=30, seed=0, prior=prior
            )
        else:
            sampler_ = BudgetedSampler(make_sampler(sampler, seed=0), self.filter, tried)
        self.study = optuna.create_study(sampler=sampler_, direction="maximize")

    def taken(self) -> set[str]:
        return {layout.layout_id for layout in self.asked}

    def predicted_bytes(self, layout: Layout) -> int:
        self.predicted.append(layout)
        return cost(layout)

    def step(self, value: Callable[[Layout], float] = lambda layout: 0.5) -> Layout:
        trial = self.study.ask(distributions(self.space))
        layout = self.filter.resolve(self.space.decode(trial.params))
        self.asked.append(layout)
        for name, known in (
            ("layout", str(layout)),
            ("flops", cost(layout)),
            ("losses", {"1": 1.0}),
        ):
            trial.set_user_attr(name, known)
        trial.report(value(layout), 1)
        self.study.tell(trial, value(layout))
        return layout


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_suggested_fits_and_is_new(sampler: str):
    space = load_space("tiny")
    budget = sorted(cost(layout) for layout in space)[len(space) // 3]
    search = Search(space, sampler, budget)
    count = 20 if sampler == "gp" else 60  # its own fit takes longest
    layouts = [search.step(lambda layout: layout.depths[2] / 10) for _ in range(count)]
    assert len(set(layouts)) == count
    assert all(cost(layout) <= budget for layout in layouts)
    assert len(search.study.trials) == count
    refusals = search.filter.refusals()
    # These take what is left, and suggest nothing else.
    takes_the_rest = sampler == "grid" or sampler.startswith("multifidelity")
    assert (refusals["over_budget"] > 0) == (not takes_the_rest)
    nearest = refusals["nearest_over_budget"]
    assert cost(Layout.parse(nearest["layout"])) > budget


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("vary", ["depth", "width"])
def test_at_equal_memory_every_suggestion_uses_the_budget(sampler: str, vary: str):
    space = load_space("paper")
    budget = sorted(cost(layout) for layout in space.shuffled(0))[len(space) // 2]
    equalizer = Equalizer(space, budget, tolerance=0.05, vary=vary, predict=cost)
    search = Search(space, sampler, budget, equalizer=equalizer)
    layouts = [search.step(lambda layout: layout.depths[2] / 100) for _ in range(20)]
    assert len(set(layouts)) == 20
    assert all(0.95 * budget <= cost(layout) <= budget for layout in layouts)
    assert all(layout in space for layout in layouts) == (vary == "depth")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_last_layout_of_a_space_is_found(sampler: str):
    space = SearchSpace(
        "small", kinds=(("C", "T"),) * 4, depths=((1, 2), (1,), (1,), (1,)), channels=(16,)
    )
    search = Search(space, sampler, budget=10**9)
    assert {search.step() for _ in range(len(space))} == set(space)
    assert next(search.filter.remaining(seed=0), None) is None


def test_layouts_to_try_come_first_and_once():
    space = load_space("tiny")
    search = Search(
        space, "tpe", 10**9, first=("C1-C1-T2-T1@16", "T1-T1-T1-T1@24", "C1-C1-T2-T1@16")
    )
    assert [str(search.step()) for _ in range(2)] == ["C1-C1-T2-T1@16", "T1-T1-T1-T1@24"]
    assert str(search.step()) not in ("C1-C1-T2-T1@16", "T1-T1-T1-T1@24")


@pytest.mark.parametrize("sampler", ["gp", "tpe"])
def test_samplers_learn_through_the_filter(sampler: str):
    space = load_space("tiny")
    learnt, chance = Search(space, sampler, 10**9), Search(space, "random", 10**9)
    for search in (learnt, chance):
        for _ in range(25):
            search.step(
                lambda layout: (layout.pattern == "C-C-T-T") + 0.1 * (layout.widths[0] == 24)
            )
    # Its first ten are random.
    share = [
        sum(layout.pattern == "C-C-T-T" for layout in search.asked[10:])
        for search in (learnt, chance)
    ]
    assert share[0] > 2 * share[1]


@pytest.mark.parametrize("name", ["tiny", "scales"])
def test_depth_settles_its_neighbours_without_asking(name: str):
    space = load_space(name)
    budget = sorted(cost(layout) for layout in space)[len(space) // 2]
    search = Search(space, "random", budget)
    for layout in space.shuffled(seed=3):
        assert search.filter.fits(layout) == (cost(layout) <= budget)
    assert len(search.predicted) < len(space) * 0.6


def test_distributions_of_ordered_and_unordered_choices():
    space = SearchSpace(
        "s",
        kinds=(("C", "T"),) * 4,
        depths=((1, 2, 3), (2, 4, 6), (1, 2, 4), (1,)),
        channels=(16, 48),
    )
    found = distributions(space)
    assert found["depth_1"] == optuna.distributions.IntDistribution(1, 3)
    assert found["depth_2"] == optuna.distributions.IntDistribution(2, 6, step=2)
    assert found["depth_3"] == optuna.distributions.CategoricalDistribution((1, 2, 4))
    assert found["channels"] == optuna.distributions.IntDistribution(16, 48, step=32)
    assert isinstance(found["pattern"], optuna.distributions.CategoricalDistribution)
    assert "depth_4" not in found


def test_grid_goes_through_the_space_in_order():
    space = load_space("tiny")
    search = Search(space, "grid", 10**9, first=("T1-T1-T1-T1@24",))
    layouts = [search.step() for _ in range(5)]
    assert [str(layouts[0]), *layouts[1:]] == ["T1-T1-T1-T1@24", *itertools.islice(space, 4)]
