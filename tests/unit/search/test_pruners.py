"""Pruners at equal epochs and at equal cost: what they stop, and that they spare the warm-up."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import optuna
import pytest
from helpers.untrained import FACTS, AdjustableBudget, spec
from optuna.trial import Trial, TrialState

from nas.config.choices import PruneAt, PrunerName
from nas.search.budget import Budget
from nas.search.pruners import (
    HyperbandAtCost,
    MedianAtCost,
    make_pruner,
    typical_flops,
)
from nas.study.optuna_internals import CandidateStudy
from nas.study.roles import BASELINE, CANDIDATE

NINE = {
    "name": "nine",
    "stages": [{"kinds": ["C"], "depths": depths} for depths in ([1, 2, 3], [1], [1, 2, 3], [1])],
}


@pytest.fixture
def budget(tmp_path: Path) -> Budget:
    return Budget(spec(tmp_path, space={**NINE, "channels": [16]}), FACTS)


def ask(study: optuna.Study, flops: int) -> Trial:
    """A candidate of this cost, as `nas.search.search` describes one before it reports."""
    trial = study.ask()
    study._storage.set_trial_user_attr(trial._trial_id, "flops", flops)
    return trial


def train(study: optuna.Study, flops: int, scores: Sequence[float]) -> int:
    """A candidate to its end, which is never asked about after its last epoch. Returns its
    epochs.
    """
    trial = ask(study, flops)
    for epoch, score in enumerate(scores, start=1):
        trial.report(score, epoch)
        if epoch < len(scores) and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return epoch
    study.tell(trial, scores[-1])
    return len(scores)


# `multifidelity` compares layouts, which these made-up trials have not: test_multifidelity.py
OPTUNAS = sorted({*get_args(PrunerName)} - {"multifidelity"})


@pytest.mark.parametrize("at", get_args(PruneAt))
@pytest.mark.parametrize("name", OPTUNAS)
def test_pruners_judge_nothing_in_the_warmup(name: str, at: str, budget: Budget):
    flops = 3 * round(typical_flops(budget))  # the warm-up alone costs more than the first rung
    pruner = make_pruner(
        name, unjudged_epochs=2, epochs=9, at_cost_in=budget if at == "cost" else None
    )
    stopped = []
    for number in range(12):  # of all brackets
        study = optuna.create_study(
            direction="maximize", pruner=pruner, study_name=f"warmup {number}"
        )
        for _ in range(6):
            train(study, flops, [0.5] * 4)
        stopped.append(train(study, flops, [0.1] * 4))
    assert set(stopped) == {"none": {4}, "median": {3}, "hyperband": {3, 4}}[name]


@pytest.mark.parametrize("name", OPTUNAS)
def test_at_equal_flops_both_settings_decide_alike(name: str, budget: Budget):
    draw, epochs = random.Random(0), 9
    curves = [[draw.random() * epoch for epoch in range(1, epochs + 1)] for _ in range(60)]
    spent = []
    for setting in (None, budget):
        pruner = make_pruner(name, unjudged_epochs=0, epochs=epochs, at_cost_in=setting)
        study = optuna.create_study(direction="maximize", pruner=pruner, study_name="alike")
        spent.append([train(study, round(typical_flops(budget)), curve) for curve in curves])
    assert spent[0] == spent[1]
    assert (len(set(spent[0])) > 2) == (name != "none")


def test_the_typical_layout_is_the_median_of_what_may_be_trained(tmp_path: Path, budget: Budget):
    sizes = sorted(
        (budget.cost(layout).flops, budget.predicted_bytes(layout)) for layout in budget.space
    )
    assert len(sizes) == 9
    assert typical_flops(budget) == sizes[4][0]
    limit = statistics.median(size for _, size in sizes)
    smaller = Budget(
        spec(
            tmp_path, space={**NINE, "channels": [16]}, **{"budget.memory": f"{limit // 2**10}KiB"}
        ),
        FACTS,
    )
    fitting = [flops for flops, size in sizes if size <= smaller.limit_bytes]
    assert 0 < len(fitting) < 9
    assert typical_flops(smaller) == statistics.median(fitting)


def test_where_hardly_anything_fits_one_that_does_is_the_typical_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    space = {
        **NINE,
        "stages": [{"kinds": ["C"], "depths": [1, 2, 3, 4]}] * 4,
        "channels": [16],
    }  # 256 layouts
    budget = AdjustableBudget(spec(tmp_path, space=space), FACTS)
    monkeypatch.setattr(budget, "predicted_bytes", lambda layout: sum(layout.depths))
    budget.limit_bytes = 4
    assert typical_flops(budget) == budget.cost(next(iter(budget.space.shallowest()))).flops


def score_at(scores: Sequence[float], flops: int, cost: int) -> float | None:
    """Slow and obvious: what a completed candidate had reached at a cost."""
    points = [(epoch * flops, score) for epoch, score in enumerate(scores, start=1)]
    if cost < points[0][0]:
        return None
    for (before, low), (after, high) in itertools.pairwise(points):
        if before <= cost <= after:
            return low + (high - low) * (cost - before) / (after - before)
    return points[-1][1]


def test_median_at_equal_cost_by_brute_force():
    draw, decisions = random.Random(1), []
    for _ in range(150):
        study = optuna.create_study(
            direction="maximize", pruner=MedianAtCost(n_startup_trials=0, n_warmup_steps=0)
        )
        done = []
        for _ in range(draw.randint(1, 9)):
            flops, scores = draw.randint(5, 50), [draw.random() for _ in range(draw.randint(1, 6))]
            trial = ask(study, flops)
            for epoch, score in enumerate(scores, start=1):
                trial.report(score, epoch)
            state = draw.choice([TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED])
            study.tell(trial, scores[-1] if state == TrialState.COMPLETE else None, state)
            done += [(flops, scores)] if state == TrialState.COMPLETE else []
        flops, scores = draw.randint(5, 50), [draw.random() for _ in range(draw.randint(1, 6))]
        trial = ask(study, flops)
        for epoch, score in enumerate(scores, start=1):
            trial.report(score, epoch)
        reached = [score_at(theirs, size, len(scores) * flops) for size, theirs in done]
        known = [score for score in reached if score is not None]
        assert trial.should_prune() == (bool(known) and max(scores) < statistics.median(known))
        assert trial.storage.get_trial(trial._trial_id).intermediate_values == dict(
            enumerate(scores, start=1)
        )
        decisions.append(trial.should_prune())
    assert 20 < sum(decisions) < 130


def at_epoch(pruner: optuna.pruners.BasePruner, flops: int, epoch: int, slope: float) -> bool:
    """Whether a candidate is stopped that gains `slope` x its cost, beside ten others of which five
    gain 0.5 x theirs.
    """
    study = optuna.create_study(direction="maximize", pruner=pruner)
    for other in range(10):
        train(
            study,
            10 + 5 * other,
            [(0.5 if other % 2 else 2.0) * (10 + 5 * other) * each / 1000 for each in range(1, 13)],
        )
    trial = ask(study, flops)
    for each in range(1, epoch + 1):
        trial.report(slope * flops * each / 1000, each)
    return trial.should_prune()


@pytest.mark.parametrize("slope", [0.4, 0.9, 1.2, 1.3, 2.1])
def test_cheap_and_expensive_candidates_with_one_curve_over_cost_are_treated_alike(slope: float):
    class Late(MedianAtCost):
        """So that the ten others are all trained in full."""

        def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
            return trial.number == 10 and super().prune(study, trial)

    # Their costs of 60 to 120 lie between the first and the last epochs of all others: the median
    # slope is (0.5 + 2) / 2.
    for total in (60, 90, 120):
        stopped = {flops: at_epoch(Late(), flops, total // flops, slope) for flops in (10, 15, 30)}
        assert set(stopped.values()) == {slope < 1.25}, (total, stopped)


def test_a_cheap_candidate_is_not_held_against_what_an_expensive_one_has_used():
    def stopped(pruner: optuna.pruners.BasePruner) -> bool:
        study = optuna.create_study(direction="maximize", pruner=pruner)
        for _ in range(4):
            train(study, 40, [0.4, 0.6, 0.7])
        cheap = ask(study, 20)  # at half the cost of an expensive epoch
        cheap.report(0.3, 1)
        return cheap.should_prune()

    assert stopped(optuna.pruners.MedianPruner(n_startup_trials=4))
    assert not stopped(MedianAtCost(n_startup_trials=4))


def test_rungs_of_hyperband_at_equal_cost():
    # Optuna's own Hyperband is shown each candidate after every epoch of a typical layout, with its
    # score interpolated there.
    draw, unit, first, epochs = random.Random(2), 100, 1, 9
    reference = optuna.create_study(
        direction="maximize",
        pruner=optuna.pruners.HyperbandPruner(first, epochs),
        study_name="rungs",
    )
    study = optuna.create_study(
        direction="maximize", pruner=HyperbandAtCost(first, epochs, unit), study_name="rungs"
    )
    ends = []
    for _ in range(120):
        flops, level = draw.choice([25, 50, 100, 130, 200, 350]), draw.random()
        scores = [level * epoch / epochs + 0.1 * draw.random() for epoch in range(1, epochs + 1)]
        expected, trial = epochs, ask(reference, flops)
        for step in range(first, epochs):
            if step * unit > (epochs - 1) * flops:  # its last epoch is not judged
                break
            trial.report(score_at(scores, flops, step * unit) or scores[0], step)
            if trial.should_prune():
                expected = math.ceil(step * unit / flops)  # its first epoch from there
                break
        reference.tell(
            trial,
            None if expected < epochs else scores[-1],
            TrialState.PRUNED if expected < epochs else None,
        )
        ends.append((flops, train(study, flops, scores)))
        assert ends[-1][1] == expected
    pruned = [(flops, end) for flops, end in ends if end < epochs]
    assert len({flops for flops, _ in pruned}) == 6
    assert {end for flops, end in pruned if flops == 25} == {
        4
    }  # in full it costs less than the second rung
    assert {end for flops, end in pruned if flops == 350} == {1}
    assert len(pruned) < 100


def test_hyperband_stops_the_worst_early_and_spends_less():
    pruner = make_pruner("hyperband", unjudged_epochs=0, epochs=9)
    # The name decides which trial falls into which bracket.
    study = optuna.create_study(direction="maximize", pruner=pruner, study_name="brackets")
    spent = {
        rank: train(study, 1, [rank / 40] * 9)
        for rank in (number * 17 % 40 for number in range(40))
    }
    assert sum(spent.values()) < 0.8 * 40 * 9
    assert spent[39] == 9
    worst, best = ([spent[rank] for rank in ranks] for ranks in (range(10), range(30, 40)))
    assert sum(worst) < 0.7 * sum(best)


def test_baselines_are_nothing_to_compare_with():
    optuna.create_study(
        study_name="beside",
        storage=(storage := optuna.storages.InMemoryStorage()),
        direction="maximize",
    )
    study = CandidateStudy("beside", storage, pruner=MedianAtCost(n_startup_trials=1))
    for role in (CANDIDATE, BASELINE, BASELINE):
        trial = ask(study, 10)
        storage.set_trial_user_attr(trial._trial_id, "role", role)
        trial.report(0.3 if role == CANDIDATE else 0.9, 1)
        study.tell(trial, 0.9)
    trial = ask(study, 10)
    trial.report(0.4, 1)
    assert not trial.should_prune()
    worse = ask(study, 10)
    worse.report(0.2, 1)
    assert worse.should_prune()
