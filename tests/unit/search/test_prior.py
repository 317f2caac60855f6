"""What earlier studies teach: carried over to another space, believed as far as results agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from numpy.typing import NDArray
from optuna.trial import TrialState

from nas.errors import StudyError
from nas.search.layout_filter import LayoutFilter
from nas.search.multifidelity.features import features_of
from nas.search.multifidelity.gaussian_process import posterior
from nas.search.multifidelity.prior import EarlierStudy, Prior, Trainings
from nas.search.multifidelity.sampler import MultiFidelitySampler
from nas.search.pruners import make_pruner
from nas.search.samplers import distributions
from search_spaces.layout import Layout
from search_spaces.loading import load_space, space_from_dict

Array = NDArray[np.float64]
SPACE = load_space("tiny")
WIDER = space_from_dict(
    {
        "name": "wider",
        "stages": [{"kinds": ["C", "T"], "depths": [2, 4]}] * 2
        + [{"kinds": ["C", "T"], "depths": [6, 12, 18]}, {"kinds": ["C", "T"], "depths": [2, 4]}],
        "channels": [64, 96],
        "conditions": ["C never after T"],
    },
    "test",
)


def cost(layout: Layout) -> int:
    return sum(d * w * w for d, w in zip(layout.depths, layout.widths, strict=True))


def trainings(layouts: Sequence[Layout]) -> Trainings:
    return Trainings(layouts, [*map(cost, layouts)])


SAMPLE = trainings(list(SPACE.shuffled(0)))


def described(layouts: Sequence[Layout]) -> Array:
    """(N, 9): kinds, and sizes in relation to the others."""
    kinds = [[stage.kind == "T" for stage in layout.stages] for layout in layouts]
    sizes = np.log([[*layout.depths, layout.widths[0]] for layout in layouts])
    relative = (sizes - sizes.min(axis=0)) / np.ptp(sizes, axis=0)
    return np.column_stack([np.array(kinds, float), relative])


def truth(layouts: Sequence[Layout], seed: int) -> Array:
    """Mean 0, deviation 1: effects of kinds and relative sizes, the same in every space."""
    values = described(layouts) @ np.random.default_rng([seed, 0]).normal(size=9)
    return (values - values.mean()) / values.std()


def earlier(seed: int, noise: float = 0.5, *, shuffled: bool = False) -> EarlierStudy:
    """Forty trainings in the wider space; `shuffled`: dealt out anew among the layouts."""
    layouts = list(WIDER.shuffled(seed))
    rng = np.random.default_rng([seed, 1])
    shown = (truth(layouts, seed) + noise * rng.normal(size=len(layouts)))[:40]
    if shuffled:
        rng.shuffle(shown)
    standard = (shown - shown.mean()) / shown.std()
    return EarlierStudy("e", trainings(layouts[:40]), standard, np.zeros(40))


def test_what_was_learnt_in_a_wider_space_holds_in_a_narrower_one():
    layouts, costs = SAMPLE
    for seed in range(4):
        expected = Prior([earlier(seed)], SAMPLE).means(layouts, costs)[:, 0]
        assert np.corrcoef(expected, truth(layouts, seed))[0, 1] > 0.75
    # Of scores that mean nothing, nothing much is expected.
    dealt = [Prior([earlier(s, shuffled=True)], SAMPLE).means(layouts, costs) for s in range(4)]
    assert np.mean([each.std() for each in dealt]) < 0.5 * expected.std()


def test_a_layout_is_expected_the_same_whatever_is_asked_with_it():
    layouts, costs = SAMPLE
    together = Prior([earlier(0), earlier(1)], SAMPLE).means(layouts, costs)
    assert together.shape == (len(layouts), 2)
    later = Prior([earlier(0), earlier(1)], SAMPLE)
    alone = [later.means([layouts[row]], [costs[row]])[0] for row in (7, 3, 7)]
    assert np.allclose(alone, together[[7, 3, 7]])
    assert np.allclose(later.means(layouts, costs), together)


def test_options_alone_are_nothing_in_common_with_sizes():
    norms = [Layout.parse(f"C1-C1-C1-C1@16+norm={norm}") for norm in ("bn", "gn")]
    depths = [Layout.parse(f"C{depth}-C1-C1-C1@16") for depth in (1, 2)]
    study = EarlierStudy("norms", Trainings(norms, [5, 5]), np.array([-1.0, 1.0]), np.zeros(2))
    with pytest.raises(StudyError, match="'norms' and this space must have a feature in common"):
        Prior([study], trainings(depths))
    again = Prior([study], Trainings(norms, [7, 7])).means(norms, [7, 7])
    assert again[1] > again[0]


def test_the_slope_is_that_of_a_linear_regression():
    """Where layouts are alike but for what earlier studies predict, the posterior is a line through
    the observations, drawn towards a slope of 0.7.
    """
    layouts = [Layout.parse("C1-C1-C1-C1@16")] * 40
    x = np.linspace(-2, 2, 40)
    alike = features_of(layouts, [1.0] * 40)._replace(prior=x[:, None])
    rng = np.random.default_rng(0)
    for slope in (1.5, 0.0, -1.0):
        scores = slope * x + 0.1 * rng.normal(size=40)
        found = posterior(alike, np.arange(40), scores, np.zeros(40))
        assert np.polyfit(x, found.mean, 1)[0] == pytest.approx(
            np.polyfit(x, scores, 1)[0], abs=0.1
        )
    of_two = np.array([0, 1])  # next to nothing is known
    few = posterior(alike, of_two, np.zeros(2), np.zeros(2))
    assert np.polyfit(x, few.mean, 1)[0] == pytest.approx(0.7, abs=0.1)
    # A constant says nothing.
    moved = posterior(alike._replace(prior=x[:, None] + 9), of_two, np.zeros(2), np.zeros(2))
    assert moved.mean == pytest.approx(few.mean)


@pytest.mark.parametrize(("sign", "stopped"), [(1, False), (-1, True)])
def test_what_is_expected_of_a_candidate_counts_when_it_is_stopped(sign: int, stopped: bool):
    layouts = [layout for layout in SAMPLE.layouts if layout.widths[0] == 16][:5]
    wide = next(layout for layout in SAMPLE.layouts if layout.widths[0] == 24)
    study = optuna.create_study(direction="maximize")
    scores = [(layout, [0.1, 0.2, 0.3 + n / 100]) for n, layout in enumerate(layouts)]
    for layout, shown in [*scores, (wide, [0.1, 0.21])]:
        done = len(shown) == 3
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.COMPLETE if done else TrialState.RUNNING,
                value=shown[-1] if done else None,
                user_attrs={"layout": str(layout), "flops": cost(layout)},
                intermediate_values=dict(enumerate(shown, start=1)),
            )
        )
    widths = np.array([float(layout.widths[0] == 24) for layout in SAMPLE.layouts])
    by_width = sign * (widths - widths.mean()) / widths.std()
    prior = Prior([EarlierStudy("e", SAMPLE, by_width, np.zeros(len(widths)))], SAMPLE)
    pruner = make_pruner("multifidelity", 0, 3, prior=prior)
    assert pruner.prune(study, study.trials[5]) == stopped


def regrets(seed: int, prior: Prior | None, trials: int) -> tuple[list[str], Array]:
    """Layouts in the order in which a search suggests them, and after each how far the truth of the
    best score so far lies below the best, in deviations.
    """
    asked: list[Layout] = []
    budget: Any = SimpleNamespace(
        space=SPACE,
        limit_bytes=10**9,
        equalizer=None,
        caps=SimpleNamespace(met=lambda layout: True, confirmed=lambda layout: True),
        predicted_bytes=cost,
    )
    allowed = LayoutFilter(budget, lambda: {layout.layout_id for layout in asked})
    sampler = MultiFidelitySampler(
        allowed, [], flops=cost, epochs=1, trials=24, seed=seed, prior=prior
    )
    study = optuna.create_study(sampler=sampler, direction="maximize")
    layouts = SAMPLE.layouts
    value = dict(zip(layouts, truth(layouts, seed), strict=True))
    noise = np.random.default_rng([seed, 2])
    best, found, shown = max(value.values()), [], {}
    for _ in range(trials):
        trial = study.ask(distributions(SPACE))
        layout = SPACE.decode(trial.params)
        asked.append(layout)
        trial.set_user_attr("layout", str(layout))
        trial.set_user_attr("flops", cost(layout))
        shown[layout] = value[layout] + 0.5 * noise.normal()
        trial.report(shown[layout], 1)
        study.tell(trial, shown[layout])
        found.append(best - value[max(shown, key=shown.__getitem__)])
    return [str(layout) for layout in asked], np.array(found)


def reversed_(study: EarlierStudy) -> EarlierStudy:
    return study._replace(scores=-study.scores)


PRIORS: dict[str, Callable[[int], EarlierStudy]] = {
    "right": earlier,
    "useless": lambda seed: earlier(seed, shuffled=True),
    "wrong": lambda seed: reversed_(earlier(seed)),
}


def mean_regrets(name: str) -> Array:
    """After each training, over six truths."""
    priors = [Prior([PRIORS[name](seed)], SAMPLE) if name else None for seed in range(6)]
    return np.mean([regrets(seed, prior, 24)[1] for seed, prior in enumerate(priors)], axis=0)


@pytest.fixture(scope="module")
def without() -> Array:
    return mean_regrets("")


def test_a_right_prior_helps_at_once(without: Array):
    found = mean_regrets("right")
    assert found[3] < 0.3 * without[3]
    assert found[7] < 0.4 * without[7]
    assert found[-1] < without[-1] + 0.1


@pytest.mark.parametrize("name", ["useless", "wrong"])
def test_what_results_contradict_is_unlearnt(name: str, without: Array):
    found = mean_regrets(name)
    assert found[3] > without[3]  # the first four are its own
    assert found[-1] < without[-1] + 0.1


def test_a_search_with_a_prior_repeats_itself():
    once, again = (regrets(0, Prior([earlier(0)], SAMPLE), 12)[0] for _ in range(2))
    assert once == again
    assert regrets(1, Prior([earlier(0)], SAMPLE), 12)[0] != once
