"""The arithmetic of a search's cost, against closed forms, a slow clock and Optuna's own
pruners.
"""

from __future__ import annotations

import itertools
import random
import statistics

import optuna
import pytest

from nas.reports.forecast import Timing
from nas.search.forecast.runtime_model import (
    Around,
    CandidateCost,
    CostModel,
    Extras,
    Work,
    expected_epochs,
    hyperband_epochs,
    makespan_s,
    search_cost,
)
from nas.search.pruners import make_pruner

TRUE = {
    "begin_s": (0.1, 1e-9, 0.0),
    "step_s": (0.01, 3e-10, 2e-9),
    "score_s": (0.0, 2e-10, 0.0),
    "keep_s": (0.02, 0.0, 1e-9),
}
SIZES = ((1e8, 3e7), (2e8, 9e7), (4e8, 8e7), (7e8, 3e8), (3e8, 1e8))


def timing(flops: float, memory_bytes: float, **changes: float) -> Timing:
    seconds = {part: a + b * flops + c * memory_bytes for part, (a, b, c) in TRUE.items()}
    return Timing("layout", int(flops), int(memory_bytes), **{**seconds, **changes})


def test_linear_data_are_recovered():
    model = CostModel.fit([timing(*size) for size in SIZES])
    for part, true in TRUE.items():
        assert model.coefficients[part] == pytest.approx(true, rel=1e-6, abs=1e-15)


def test_nothing_is_below_zero_however_the_timings_are():
    times = (0.5, 0.4, 0.3, 0.2, 0.1)  # the larger, the faster
    model = CostModel.fit(
        [timing(*size, step_s=step_s) for size, step_s in zip(sorted(SIZES), times, strict=True)]
    )
    assert all(value >= 0 for values in model.coefficients.values() for value in values)
    with pytest.raises(ValueError, match="at least one"):
        CostModel.fit([])


def test_one_layout_predicts_itself():
    model = CostModel.fit([timing(2e8, 9e7)] * 2)
    cost = model(int(2e8), int(9e7), Work(steps=1, scored=0))
    assert cost.train_s == pytest.approx(timing(2e8, 9e7).step_s)


def test_a_candidate_is_the_sum_of_what_it_does():
    model, one = CostModel.fit([timing(*size) for size in SIZES]), timing(5e8, 2e8)
    cost = model(one.flops, one.memory_bytes, Work(steps=50, scored=30, tested=20))
    seconds = one.begin_s
    for _ in range(7):
        for _ in range(50):
            seconds += one.step_s
        for _ in range(30):
            seconds += one.score_s
        seconds += one.keep_s
    for _ in range(20):
        seconds += one.score_s
    assert cost.total_s(7) == pytest.approx(seconds)
    shared = model(one.flops, one.memory_bytes, Work(steps=50, scored=30, tested=20, processes=2))
    assert shared.train_s == pytest.approx(cost.train_s / 2)


def test_a_search_against_a_slow_clock():
    first = [CandidateCost(1.0, 4.0, 6.0, 0.5), CandidateCost(1.0, 8.0, 11.0, 0.5)]
    sample = [CandidateCost(2.0, 5.0, 7.0, 0.0), CandidateCost(2.0, 7.0, 9.0, 0.0)]
    around = Around(worker_s=3.0, choose_s=0.5, read_train_s=0.25, read_others_s=0.125)
    extras = Extras([CandidateCost(1.0, 9.0, 10.0, 0.5)] * 2, replicates=1, epochs=4)
    found = search_cost(
        first, sample, candidates=5, epochs=2, concurrent=2, around=around, extras=extras
    )
    each_s = [1 + 12 + 0.5, 1 + 22 + 0.5, 18.0, 18.0, 18.0, 1 + 40 + 0.5, 1 + 40 + 0.5, 2 + 32.0]
    assert found.candidates_s == pytest.approx(sum(each_s) + 0.375)
    assert found.train_s == pytest.approx(2 * (4 + 8 + 6 + 6 + 6) + 4 * (9 + 9 + 6) + 0.25)
    waiting, running, now = [seconds + 0.5 for seconds in each_s], list[float](), 0.0
    while waiting or running:
        while waiting and len(running) < 2:
            running.append(now + waiting.pop(0))
        now = min(running)
        running.remove(now)
    assert found.wall_s == pytest.approx(now + 3 + 0.375)


def test_equal_candidates_run_in_rounds():
    assert makespan_s([10.0] * 8, 1) == 80
    assert makespan_s([10.0] * 8, 4) == 20
    assert makespan_s([10.0] * 9, 4) == 30


def epochs_under(
    pruner: optuna.pruners.BasePruner,
    name: str,
    scores: list[float],
    epochs: int,
    every: int = 1,
) -> list[int]:
    """Trains candidates with these scores one after the other, as `nas.search.search` does: every
    `every` epochs a report, and the last one ends a trial.
    """
    study, trained = optuna.create_study(study_name=name, direction="maximize", pruner=pruner), []
    for score in scores:
        trial = study.ask()
        for epoch in itertools.count(1):
            if epoch % every and epoch < epochs:
                continue
            trial.report(score, epoch)
            if epoch == epochs:
                study.tell(trial, score)
                break
            if trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        trained.append(epoch)
    return trained


def test_without_a_pruner_all_epochs_are_trained():
    trained = epochs_under(make_pruner("none", 1, 6), "none", [0.3, 0.2, 0.1], 6)
    assert expected_epochs("none", 6, 1, 3) == (statistics.fmean(trained),) * 2


@pytest.mark.parametrize(
    ("trials", "epochs", "unjudged", "every"),
    [
        (40, 9, 0, 1),
        (40, 8, 1, 1),
        (24, 27, 0, 1),
        (5, 3, 0, 1),
        (40, 2, 4, 1),
        (40, 20, 1, 2),
        (40, 20, 5, 3),
    ],
)
def test_hyperband_against_optuna(trials: int, epochs: int, unjudged: int, every: int):
    draw, trained = random.Random(0), list[float]()
    for repetition in range(12):
        scores = [draw.random() for _ in range(trials)]
        trained += epochs_under(
            make_pruner("hyperband", unjudged, epochs),
            f"study {repetition}",
            scores,
            epochs,
            every,
        )
    low, high = expected_epochs("hyperband", epochs, unjudged, trials)
    assert low == high
    assert low == pytest.approx(statistics.fmean(trained), rel=0.15)


def test_one_rung_of_hyperband_by_hand():
    # Two brackets with the shares 3 and 2 of 5; those of the first that reach 1 epoch: 1, 1/2 and
    # 1/3 go on to 3.
    assert hyperband_epochs(3, 1, 5) == pytest.approx((3 * 1 + (1 + 1 / 2 + 1 / 3) * 2 + 2 * 3) / 5)


@pytest.mark.parametrize("warmup", [0, 2])
def test_the_median_pruner_stays_within_its_range(warmup: int):
    low, high = expected_epochs("median", 6, warmup, 12)
    falling, rising = [1 - k / 20 for k in range(12)], [k / 20 for k in range(12)]
    assert statistics.fmean(
        epochs_under(make_pruner("median", warmup, 6), "falling", falling, 6)
    ) == pytest.approx(low)
    assert statistics.fmean(
        epochs_under(make_pruner("median", warmup, 6), "rising", rising, 6)
    ) == pytest.approx(high)
