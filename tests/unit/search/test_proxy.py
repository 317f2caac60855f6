"""Whether a ranking holds: the statistics against slow counts, the layouts that are asked, what is
kept of the answer.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers.untrained import FACTS, AdjustableBudget, Driver, report, spec

from dashboards.study_view import StudyView
from dashboards.summary import summary_paragraphs
from nas.errors import SpecError, StudyError
from nas.search.budget import Budget
from nas.search.open_search import open_search
from nas.search.proxy.layouts import choose_layouts, spread
from nas.search.proxy.rank_correlation import Pair, agreement, interval, ranks, top_recall, verdict
from nas.search.proxy.studies import (
    FULL,
    PROXY,
    chosen_before,
    compared,
    fuller,
    outcomes,
    record,
    request_of,
    store,
)
from nas.search.search import Search
from search_spaces.layout import Layout
from search_spaces.loading import load_space

SMALL = {
    "name": "small",
    "stages": [{"kinds": ["C", "T"], "depths": [1, 2]}, *[{"kinds": ["C"], "depths": [1, 2]}] * 3],
    "channels": [16],
}
REQUEST = {"space": SMALL, "recipe.name": "tiny", "recipe.epochs": 2, "run.retries": 0}


def pairs(proxy: list[float], full: list[float]) -> list[Pair]:
    return [
        Pair(f"layout {i}", 1, a, b, 10.0, 40.0)
        for i, (a, b) in enumerate(zip(proxy, full, strict=True))
    ]


def counted_tau(proxy: list[float], full: list[float]) -> float:
    """Tau-b by its definition: pair by pair."""
    both = list(itertools.combinations(zip(proxy, full, strict=True), 2))
    signs = [(int(a > c) - int(a < c), int(b > d) - int(b < d)) for (a, b), (c, d) in both]
    untied = [sum(sign[side] != 0 for sign in signs) for side in (0, 1)]
    return sum(a * b for a, b in signs) / math.sqrt(untied[0] * untied[1])


@pytest.mark.parametrize("layouts", [2, 12])
@pytest.mark.parametrize("values", [3, 1000], ids=["with ties", "hardly any ties"])
def test_tau_is_a_count_of_pairs(layouts: int, values: int):
    drawn = random.Random(layouts)
    proxy, full = ([drawn.randrange(values) / values for _ in range(layouts)] for _ in range(2))
    proxy[:2], full[:2] = [0.1, 0.2], [0.1, 0.2]  # not all equal
    found = agreement(pairs(proxy, full))
    assert found.tau == pytest.approx(counted_tau(proxy, full))
    assert -1 <= found.tau_low <= found.tau <= found.tau_high <= 1


def test_perfect_reversed_and_tied_rankings():
    scores = [number / 10 for number in range(8)]
    perfect, reversed_ = agreement(pairs(scores, scores)), agreement(pairs(scores, scores[::-1]))
    assert (perfect.tau, perfect.tau_low, perfect.tau_high, perfect.verdict) == (1, 1, 1, "may")
    assert perfect.top_recall == {1: 1, 3: 1, 5: 1}
    assert (perfect.proxy_s, perfect.full_s, perfect.cost_ratio) == (80, 320, 4)
    assert perfect.text == (
        "The proxy may be used: Kendall's tau 1.00, 95 % interval 1.00 to 1.00, over 8 layouts; "
        "recall 1.00 of the best 1, "
        "1.00 of the best 3, 1.00 of the best 5; the fuller training takes 4.0 times as long."
    )
    assert (reversed_.tau, reversed_.tau_high, reversed_.verdict) == (-1, -1, "may not")
    assert reversed_.top_recall == {
        1: 0,
        3: 0,
        5: pytest.approx(2 / 5),
    }  # of 8, two are among the 5 best and the 5 worst
    tied = agreement(pairs([0.0] * 8, scores))
    assert (tied.tau, tied.tau_low, tied.verdict) == (None, None, "cannot be told")
    assert "no Kendall's tau, because one recipe gives the same mAP to all" in tied.text
    assert (
        agreement(pairs(scores[:5], scores[:5])).verdict == "cannot be told"
    )  # as many come out in order by chance
    json.dumps(tied.to_dict(), allow_nan=False)


def test_the_interval_is_that_of_a_slow_bootstrap():
    drawn = np.random.default_rng(3)
    proxy = drawn.normal(size=12)
    full = proxy + drawn.normal(size=12)
    slow = []
    for _ in range(400):  # with draws of its own
        pick = drawn.integers(12, size=12)
        slow.append(counted_tau(list(proxy[pick]), list(full[pick])))
    assert interval(proxy, full) == pytest.approx(np.percentile(slow, (2.5, 97.5)), abs=0.08)
    assert interval(proxy, full) == interval(proxy, full)


@pytest.mark.parametrize(
    ("layouts", "tau", "low", "high", "said"),
    [
        (6, 0.5, 0.31, 0.9, "may"),
        (5, 1.0, 1.0, 1.0, "cannot be told"),
        (40, 0.49, 0.31, 0.6, "cannot be told"),
        (40, 0.6, 0.3, 0.8, "cannot be told"),
        (40, 0.3, 0.1, 0.49, "may not"),
        (40, 0.3, 0.1, 0.5, "cannot be told"),
        (40, None, None, None, "cannot be told"),
    ],
)
def test_the_rule(
    layouts: int, tau: float | None, low: float | None, high: float | None, said: str
):
    assert verdict(layouts, tau, low, high) == said


@pytest.mark.long
@pytest.mark.parametrize(
    ("true_tau", "layouts", "said", "least", "most"),
    [(0, 6, "may", 0, 0.05), (0.8, 12, "may", 0.75, 1), (0, 20, "may not", 0.7, 1)],
)
def test_how_often_the_rule_is_right(
    true_tau: float, layouts: int, said: str, least: float, most: float
):
    drawn, share = (
        np.random.default_rng(0),
        math.sin(math.pi / 2 * true_tau),
    )  # the correlation of normal scores with that tau
    verdicts = []
    for _ in range(80):
        proxy = drawn.normal(size=layouts)
        full = share * proxy + math.sqrt(1 - share**2) * drawn.normal(size=layouts)
        verdicts.append(agreement(pairs(list(proxy), list(full))).verdict)
    assert least <= verdicts.count(said) / len(verdicts) <= most


def test_recall_is_that_of_all_ways_to_break_ties():
    proxy, full = np.array([3, 1, 1, 1, 0]), np.array([2, 2, 0, 2, 1])
    places = range(5)
    orders = [
        [
            order
            for order in itertools.permutations(places)
            if all(values[a] >= values[b] for a, b in itertools.pairwise(order))
        ]
        for values in (proxy, full)
    ]
    for k in (1, 2, 3):
        shares = [len({*a[:k]} & {*b[:k]}) / k for a in orders[0] for b in orders[1]]
        assert top_recall(proxy, full, k) == pytest.approx(sum(shares) / len(shares))


def test_ranks_count_down_and_share_the_better_place():
    assert ranks([0.1, 0.3, 0.3, 0.2]) == [4, 1, 1, 3]


# --------------------------------------------------------------------------------------------------


def parts(pool: list[tuple[Layout, int]], count: int) -> list[set[Layout]]:
    ordered = sorted(pool, key=lambda pair: (pair[1], str(pair[0])))
    return [
        {layout for layout, _ in piece}
        for piece in np.array_split(np.array(ordered, dtype=object), count)
    ]


def test_each_part_of_the_flops_and_each_pattern_is_chosen():
    space = load_space("tiny")
    by_pattern = [
        [layout for layout in space if layout.pattern == pattern] for pattern in space.patterns
    ]
    turns = [
        layout for turn in zip(*by_pattern, strict=True) for layout in turn
    ]  # every part has every pattern
    pool = [(layout, flops) for flops, layout in enumerate(turns)]
    chosen = spread(pool, 12)
    assert len(pool) % 12 == 0
    assert [len(part & {*chosen}) for part in parts(pool, 12)] == [1] * 12
    counts = Counter(layout.pattern for layout in chosen)
    assert counts.keys() == {*space.patterns}
    assert max(counts.values()) - min(counts.values()) <= 1
    random.Random(0).shuffle(pool)
    assert spread(pool, 12) == chosen
    more = spread(pool, 20, chosen)
    assert {*chosen} < {*more}
    assert all(part & {*more} for part in parts(pool, 20))
    assert len(spread(pool, 24, chosen)) == 24  # where parts are halved, one more for each
    assert {*spread(pool[:5], 9)} == {layout for layout, _ in pool[:5]}


def test_layouts_fit_by_both_recipes_and_grow_with_their_number(tmp_path: Path):
    request = spec(tmp_path, **REQUEST)
    small = AdjustableBudget(request, FACTS)
    big = AdjustableBudget(fuller(request, 4, None), FACTS)
    sizes = sorted(small.predicted_bytes(layout) for layout in small.space)
    small.limit_bytes, big.limit_bytes = sizes[28], sizes[20]  # of 32
    four = choose_layouts(small, big, 4)
    assert len({*four}) == 4
    assert all(small.predicted_bytes(layout) <= sizes[20] for layout in four)
    assert four == choose_layouts(small, big, 4)
    assert {*four} < {*choose_layouts(small, big, 8, four)}
    big.limit_bytes = sizes[0]
    with pytest.raises(
        StudyError, match="needs two layouts of space 'small' that fit by both recipes; there are 1"
    ):
        choose_layouts(small, big, 4)
    big.limit_bytes = 1
    with pytest.raises(StudyError, match="no layout of space 'small' fits"):
        choose_layouts(small, big, 4)


def test_layouts_of_equal_memory_are_those_that_use_it(tmp_path: Path):
    flags = {"budget.mode": "equalize", "budget.like": "C2-C2-C2-C2@16", "budget.tolerance": 0.1}
    request = spec(tmp_path, **REQUEST, **flags)
    equal, full = Budget(request, FACTS), Budget(fuller(request, 2, None), FACTS)
    chosen = choose_layouts(equal, full, 3)
    assert len(chosen) == 3
    assert all(
        0.9 * equal.limit_bytes <= equal.predicted_bytes(layout) <= equal.limit_bytes
        for layout in chosen
    )


# --------------------------------------------------------------------------------------------------


def test_the_fuller_recipe(tmp_path: Path):
    request = spec(
        tmp_path, **{"recipe.schedule": "step", "recipe.epochs": 8, "recipe.decay_epochs": [5, 7]}
    )
    longer = fuller(request, 3, None).recipe
    assert (longer.epochs, longer.decay_epochs, longer.patience) == (24, (15, 21), 15)
    unchanged = {"epochs", "decay_epochs", "patience"}
    assert longer.model_dump(exclude=unchanged) == request.recipe.model_dump(exclude=unchanged)
    assert fuller(request, 3, "paper-24").recipe.decay_epochs == (22,)
    with pytest.raises(
        SpecError, match="--full must be another recipe than that of the search; both are 'proxy'"
    ):
        fuller(spec(tmp_path, recipe="proxy", **{"recipe.epochs": 8}), 4, "proxy")
    with pytest.raises(SpecError, match="did you mean 'paper'"):
        fuller(request, 4, "papr")


class Check:
    """Both studies of a check, driven without training."""

    def __init__(self, tmp_path: Path) -> None:
        self.spec = spec(tmp_path, **REQUEST)
        self.full_spec = fuller(self.spec, 2, None)
        self.layouts = choose_layouts(Budget(self.spec, FACTS), Budget(self.full_spec, FACTS), 4)

    def train(self, name: str, layouts: list[Layout], scores: list[float | None]) -> Search:
        """None is a failure."""
        request = request_of(self.spec if name == PROXY else self.full_spec, name, layouts)
        study, epochs = open_search(request, FACTS), request.recipe.epochs
        while assignment := study.ask():
            score = scores[layouts.index(assignment.layout)]
            if score is None:
                study.fail(assignment.number, "NonFiniteLoss: nan")
            else:
                study.report(assignment.number, report(score, epochs, epochs))
        return study


def test_what_failed_is_left_out_and_the_rest_is_kept(tmp_path: Path, nas):
    own = Driver(tmp_path, **REQUEST)
    own.train()
    check = Check(tmp_path)
    assert not chosen_before(check.spec)
    proxy = check.train(PROXY, check.layouts, [0.1, None, 0.3, 0.2])
    assert chosen_before(check.spec) == check.layouts
    done, lost = outcomes(proxy, check.layouts)
    full = check.train(FULL, [*done], [0.2, None, 0.4])
    assert (proxy.spec.study, full.spec.study) == ("cells.proxy", "cells.full")
    assert {trial.user_attrs["seed"] for trial in full.study.trials} == {1}
    both, lost_later = outcomes(full, [*done])
    left_out = lost | lost_later
    assert left_out == {
        str(check.layouts[1]): "cells.proxy: NonFiniteLoss: nan",
        str(check.layouts[2]): "cells.full: NonFiniteLoss: nan",
    }
    found = compared(done, both)
    assert [(pair.layout, pair.proxy_map, pair.full_map) for pair in found.pairs] == [
        (str(check.layouts[0]), 0.1, 0.2),
        (str(check.layouts[3]), 0.2, 0.4),
    ]
    kept = record(found, proxy, full, left_out)
    assert store(kept, check.spec, (proxy, full)) == ["cells.proxy", "cells.full", "cells"]
    assert kept.to_dict()["full"] == {
        "study": "cells.full",
        "recipe": "tiny",
        "epochs": 4,
        "image_size": 160,
        "seed": 1,
    }
    attributes = own.study.study.user_attrs
    assert attributes["nas_proxy_check"] == json.loads(json.dumps(kept.to_dict()))
    assert ("Proxy", found.text) in summary_paragraphs(StudyView.read(own.study.study))
    for name in ("cells", "cells.proxy"):
        code, out, _ = nas("status", "--study", name, "--storage", check.spec.storage)
        assert code == 0
        assert found.text in " ".join(out.split())


def test_a_study_of_another_recipe_does_not_get_the_check(tmp_path: Path):
    own = Driver(tmp_path, **{**REQUEST, "recipe.epochs": 3})
    check = Check(tmp_path)
    studies = (
        check.train(PROXY, check.layouts, [0.1] * 4),
        check.train(FULL, check.layouts, [0.2] * 4),
    )
    found = compared(*(outcomes(study, check.layouts)[0] for study in studies))
    assert store(record(found, *studies, {}), check.spec, studies) == ["cells.proxy", "cells.full"]
    assert "nas_proxy_check" not in own.study.study.user_attrs
    with pytest.raises(
        StudyError,
        match=r"needs two layouts that both trainings complete; cells\.none has 1; .*nan",
    ):
        outcomes(check.train("none", check.layouts, [0.1, None, None, None]), check.layouts)
