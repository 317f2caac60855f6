"""The Gaussian process over layouts and epochs: its pieces against closed forms and libraries, the
whole on made-up truths.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Kernel

from nas.search.multifidelity import gaussian_process
from nas.search.multifidelity.curves import Curve, projected_scores
from nas.search.multifidelity.design import designed, most_balanced
from nas.search.multifidelity.features import Features, features_of
from nas.search.multifidelity.gaussian_process import Posterior, posterior
from nas.search.multifidelity.observations import MOST, Observations
from nas.search.multifidelity.pruner import MultiFidelityPruner
from search_spaces.layout import Layout
from search_spaces.loading import load_space

LAYOUTS = list(load_space("tiny").shuffled(0))[:60]


def test_features_are_what_layouts_differ_in():
    texts = ("C1-C2-T4-T1@16", "T1-C2-T1-T1@32", "C1-C2-T2-T1@16+norm=gn")
    found = features_of([Layout.parse(text) for text in texts], [1.0, np.e, np.e**2])
    assert found.kinds.shape == (3, 3)  # the first stage, its stem, the norm
    # Depth of the third stage, width of the first; others double it.
    assert np.array_equal(found.sizes, [[2, 4], [0, 5], [1, 4]])
    assert found.cost == pytest.approx([-np.sqrt(1.5), 0, np.sqrt(1.5)])


def test_unfinished_curves_are_projected_by_the_steps_of_others():
    whole = [Curve({1: 0.1, 2: 0.3, 3: 0.4}, {}, complete=True) for _ in range(2)]
    half = Curve({1: 0.2, 2: 0.5}, {})
    scores, left = projected_scores([*whole, half], epochs=3)
    assert left == pytest.approx([0, 0, 1 / 3])
    # 0.4, 0.4 and 0.5 + 0.1; the deviation of these is 0.0943.
    assert scores == pytest.approx([-0.7071, -0.7071, 1.4142], abs=1e-3)


def test_a_training_that_ended_early_is_not_projected():
    whole = Curve({1: 0.1, 2: 0.3, 3: 0.5}, {}, complete=True)
    ended = Curve({1: 0.2, 2: 0.5}, {}, complete=True)  # by its schedule
    scores, left = projected_scores([whole, ended], epochs=3)
    assert left.tolist() == [0, 0]
    assert scores == pytest.approx([0, 0], abs=1e-6)


def curves(losses: np.ndarray, maps: np.ndarray) -> list[Curve]:
    return [
        Curve({1: score / 2, 2: score}, {1: loss + 1, 2: loss})
        for score, loss in zip(maps.tolist(), losses.tolist(), strict=True)
    ]


def test_a_loss_counts_only_while_it_agrees():
    maps = np.linspace(0.1, 0.4, 8)
    agreeing, _ = projected_scores(curves(1 - maps, maps), epochs=2)
    assert np.all(np.diff(agreeing) > 0)
    misleading, _ = projected_scores(curves(1 + maps, maps), epochs=2)
    alone, _ = projected_scores([Curve(each.scores, {}) for each in curves(maps, maps)], epochs=2)
    assert misleading == pytest.approx(alone)
    # Of a score whose loss says otherwise, 0.7 is the loss.
    other = 1 - maps
    other[[0, 1]] = other[[1, 0]]
    mixed, _ = projected_scores(curves(other, maps), epochs=2)
    assert mixed[0] > mixed[1]


class Same(Kernel):
    """Our covariance as a kernel of scikit-learn, of rows of numbers."""

    def __init__(self, kernel: Any, features: Features) -> None:
        self.kernel, self.features = kernel, features

    def __call__(self, some: Any, others: Any = None, eval_gradient: bool = False) -> Any:
        return self.kernel.between(self.of(some), self.of(some if others is None else others))

    def diag(self, some: Any) -> Any:
        return self.kernel.diagonal(self.of(some))

    def of(self, rows: Any) -> Features:
        return self.features.rows(np.asarray(rows)[:, 0].astype(int))

    def is_stationary(self) -> bool:
        return False

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {"kernel": self.kernel, "features": self.features}


@pytest.mark.parametrize("studies", [0, 1, 3])
def test_one_draw_is_a_gaussian_process_as_scikit_learn_has_it(studies: int):
    features = features_of(LAYOUTS, [float(i + 1) for i in range(len(LAYOUTS))])
    rng = np.random.default_rng(3)
    predicted = np.random.default_rng(4).normal(size=(len(LAYOUTS), studies))
    features = features._replace(prior=predicted)
    trend = 0.7 * predicted.mean(axis=1) if studies else np.zeros(len(LAYOUTS))
    rows, scores = rng.permutation(len(LAYOUTS))[:12], rng.normal(size=12)
    left = rng.uniform(0, 1, 12)
    draw = np.random.default_rng(5)
    kernel = gaussian_process._Kernel(draw, features)
    noise, unfinished = (gaussian_process._between(draw, *ends) for ends in ((0.02, 1.5), (0.5, 6)))
    _, mean, variance = gaussian_process._one_draw(
        np.random.default_rng(5), features, rows, scores, left
    )
    regressor = GaussianProcessRegressor(
        Same(kernel, features), alpha=noise * (1 + unfinished * left), optimizer=None
    ).fit(rows[:, None], scores - trend[rows])
    expected, deviation = regressor.predict(np.arange(len(LAYOUTS))[:, None], return_std=True)
    assert mean == pytest.approx(expected + trend, abs=1e-8)
    ratio = variance / deviation**2  # the scale that the scores have chosen
    assert ratio == pytest.approx(np.full(len(LAYOUTS), ratio[0]), rel=1e-6)


def test_expected_improvement_by_sampling():
    found = Posterior(np.array([0.0, 1.0]), np.array([1.0, 0.5]))
    draws = np.random.default_rng(0).normal(size=(400_000, 2)) * found.deviation + found.mean
    sampled = np.maximum(draws - 0.8, 0).mean(axis=0)
    assert found.expected_improvement(0.8) == pytest.approx(sampled, abs=4e-3)
    above = (draws[:, 0] > draws[:, 1]).mean()
    assert found.probability_above(0, 1) == pytest.approx(above, abs=4e-3)


def test_what_was_seen_is_learnt_and_what_is_like_it():
    truth = np.array(
        [layout.depths[2] + 2 * layout.pattern.count("T") for layout in LAYOUTS], float
    )
    truth = (truth - truth.mean()) / truth.std()
    features = features_of(LAYOUTS, [1.0] * len(LAYOUTS))
    found = posterior(features, np.arange(30), truth[:30], np.zeros(30))
    unseen = slice(30, None)
    assert np.corrcoef(found.mean[unseen], truth[unseen])[0, 1] > 0.8
    assert found.deviation[unseen].mean() > found.deviation[:30].mean()


def test_the_first_layouts_take_turns():
    pool = [{"pattern": p, "depth": d} for p in "abc" for d in (1, 2)]
    chosen: list[dict[str, Any]] = []
    for number in range(6):
        chosen.append(pool[most_balanced(pool, chosen, seed=number)])
    assert [sum(each["pattern"] == p for each in chosen) for p in "abc"] == [2, 2, 2]
    assert sorted(each["pattern"] for each in chosen[:3]) == ["a", "b", "c"]
    assert [designed(trials) for trials in (1, 6, 15, 40)] == [1, 2, 5, 8]


def study_of(trials: list[tuple[str, list[float], TrialState]]) -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    for text, scores, state in trials:
        study.add_trial(
            create_trial(
                state=state,
                value=scores[-1] if state == TrialState.COMPLETE else None,
                user_attrs={"layout": text, "flops": 100},
                intermediate_values=dict(enumerate(scores, start=1)),
            )
        )
    return study


GOOD, BAD = [0.2, 0.3, 0.35, 0.4], [0.02, 0.03]
COMPLETE, RUNNING = TrialState.COMPLETE, TrialState.RUNNING


def test_a_hopeless_candidate_is_stopped_but_not_too_soon():
    texts = [str(layout) for layout in LAYOUTS[:7]]
    done = [(text, [s + n / 500 for s in GOOD], COMPLETE) for n, text in enumerate(texts[:5])]
    study = study_of([*done, (texts[5], BAD, RUNNING), (texts[6], [0.22, 0.33], RUNNING)])
    hopeless, promising = study.trials[5:]
    pruner = MultiFidelityPruner(epochs=4, unjudged_epochs=0)
    assert pruner.prune(study, hopeless)
    assert not pruner.prune(study, promising)
    assert not MultiFidelityPruner(epochs=4, unjudged_epochs=2).prune(study, hopeless)
    early = study_of([(text, BAD, RUNNING) for text in texts])
    assert not pruner.prune(early, early.trials[6])  # nothing is complete
    first = study_of([*[(text, GOOD, COMPLETE) for text in texts[:3]], (texts[3], BAD, RUNNING)])
    assert not pruner.prune(first, first.trials[3])  # one of the first four


def test_a_trial_without_a_score_counts_as_expected():
    texts = [str(layout) for layout in LAYOUTS[:5]]
    study = study_of([*[(text, GOOD, COMPLETE) for text in texts[:4]], (texts[4], [], RUNNING)])
    seen = Observations.of(study, epochs=4)
    assert (len(seen.trials), len(seen.pending)) == (4, 1)
    alone = Observations(seen.trials, seen.curves, []).model(4, LAYOUTS[4:5], [100.0])
    believed = seen.model(4, [], [])
    assert believed.mean[4] == pytest.approx(alone.mean[4], abs=0.05)
    assert believed.deviation[4] < alone.deviation[4]


def test_of_very_many_trials_the_best_and_the_latest_are_learned_from():
    study = optuna.create_study(direction="maximize")
    best = [0, 7, 123]
    for number in range(MOST + 400):
        score = 0.9 if number in best else 0.5 - number * 1e-5
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE,
                value=score,
                user_attrs={"layout": "C1-C1-T2-T1@16", "flops": 100},
                intermediate_values={1: score},
            )
        )
    seen = [trial.number for trial in Observations.of(study, 1).trials]
    assert len(seen) == MOST
    assert seen == sorted(seen)
    assert {*best, *range(MOST + 400 - MOST // 2, MOST + 400)} <= set(seen)
