"""What a search costs, from what a few layouts were measured to take: pure arithmetic, in seconds.

Every part of a candidate's time is taken to be a + b x FLOPs + c x bytes of predicted memory, with
no coefficient below zero: arithmetic takes what FLOPs say, and what only moves data what memory
says.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from scipy.optimize import nnls

from nas.reports.forecast import Timing
from nas.search.multifidelity.pruner import FIRST_EPOCH, UNSTOPPED
from nas.search.pruners import MEDIAN_STARTUP, REDUCTION

PARTS = ("begin_s", "step_s", "score_s", "keep_s")


@dataclass(frozen=True)
class Work:
    """What a candidate does.

    Args:
        steps: training steps of an epoch.
        scored: images scored in an epoch, on average.
        tested: images scored once, at the end.
        processes: that share the work, evenly as is assumed.
    """

    steps: int
    scored: float
    tested: int = 0
    processes: int = 1


@dataclass(frozen=True)
class CandidateCost:
    """Predicted seconds of one candidate.

    Args:
        begin_s: to build and calibrate it, once.
        train_s: of training in an epoch, a part of `epoch_s`.
        epoch_s: of an epoch, with scoring and checkpoint.
        end_s: at its end, once.
    """

    begin_s: float
    train_s: float
    epoch_s: float
    end_s: float

    def total_s(self, epochs: float) -> float:
        """Seconds from its beginning to its end, if it is trained for `epochs`."""
        return self.begin_s + epochs * self.epoch_s + self.end_s


@dataclass(frozen=True)
class CostModel:
    """Predicts the seconds of a layout from its FLOPs and its memory.

    Args:
        coefficients: for each of `PARTS`, seconds (constant, per multiply-add, per byte).
    """

    coefficients: dict[str, tuple[float, float, float]]

    @classmethod
    def fit(cls, timings: Sequence[Timing]) -> CostModel:
        """Fit the model to measurements by least squares of relative errors.

        Args:
            timings: at least one; layouts may come several times.

        Raises:
            ValueError: there are no timings.
        """
        if not timings:
            raise ValueError("a cost model needs at least one timing; got none")
        sizes = np.array([(1.0, timing.flops, timing.memory_bytes) for timing in timings])
        return cls(
            {
                part: _fitted(sizes, np.array([getattr(timing, part) for timing in timings]))
                for part in PARTS
            }
        )

    def __call__(self, flops: int, memory_bytes: int, work: Work) -> CandidateCost:
        """Predict one candidate.

        Args:
            flops: multiply-adds for one image.
            memory_bytes: predicted peak of a training step.
            work: what it does.
        """
        sizes = (1.0, flops, memory_bytes)
        seconds = {
            part: sum(c * x for c, x in zip(self.coefficients[part], sizes, strict=True))
            for part in PARTS
        }
        step_s, score_s = seconds["step_s"] / work.processes, seconds["score_s"] / work.processes
        epoch_s = work.steps * step_s + work.scored * score_s + seconds["keep_s"]
        return CandidateCost(
            seconds["begin_s"], work.steps * step_s, epoch_s, work.tested * score_s
        )


def _fitted(sizes: np.ndarray, seconds: np.ndarray) -> tuple[float, float, float]:
    scale, floor_s = sizes.max(axis=0), np.maximum(seconds, 1e-9)
    found, _ = nnls(sizes / scale / floor_s[:, None], seconds / floor_s)
    first, second, third = found / scale
    return float(first), float(second), float(third)


def expected_epochs(
    pruner: str, epochs: int, unjudged_epochs: int, trials: int
) -> tuple[float, float]:
    """Mean epochs of a candidate that a pruner leaves, at least and at most.

    Args:
        pruner: one of `nas.config.choices.PrunerName`, as `nas.search.pruners.make_pruner` sets it
            up.
        epochs: of the recipe.
        unjudged_epochs: that no candidate is stopped in.
        trials: candidates in all.

    `none` trains them all. `hyperband` has an expectation (see `hyperband_epochs`). What `median`
    and `multifidelity` stop depends on the scores: at best every candidate after the first ones as
    soon as they may, at worst none. Where candidates are pruned at equal cost, Hyperband's are the
    epochs of a layout of median FLOPs.
    """
    first = min(unjudged_epochs + 1, epochs)
    if pruner == "hyperband":
        expected = hyperband_epochs(epochs, first, trials)
        return expected, expected
    if pruner in ("median", "multifidelity"):
        by_model = pruner == "multifidelity"
        spared = min(trials, UNSTOPPED if by_model else MEDIAN_STARTUP)
        soonest = min(max(first, FIRST_EPOCH), epochs) if by_model else first
        return (spared * epochs + (trials - spared) * soonest) / trials, float(epochs)
    return float(epochs), float(epochs)


def hyperband_epochs(epochs: int, first: int, trials: int) -> float:
    """Mean epochs of a candidate under Optuna's Hyperband, expected where scores come in random
    order.

    Args:
        epochs: of the recipe.
        first: epochs before the first candidate may be stopped.
        trials: candidates in all.

    Of n brackets, number b has the share ceil(n 3^s / (s + 1)), s = n - 1 - b, of candidates, and
    rungs at first x 3^(b + r) epochs. The k-th candidate that reaches a rung goes on if it is among
    the best max(1, floor(k / 3)) so far. Candidates of later rungs are taken to come in random
    order too.
    """
    brackets = math.floor(math.log(epochs / first, REDUCTION) + 1e-9) + 1
    shares = [math.ceil(brackets * REDUCTION**s / (s + 1)) for s in reversed(range(brackets))]
    counts = [trials * share / sum(shares) for share in shares]
    return (
        sum(_bracket_epochs(count, epochs, first * REDUCTION**b) for b, count in enumerate(counts))
        / trials
    )


def _bracket_epochs(candidates: float, epochs: int, rung: int) -> float:
    """Epochs of all candidates of a bracket together, expected."""
    total, done = 0.0, 0
    while rung < epochs:
        total += candidates * (rung - done)
        candidates, done, rung = _promoted(candidates), rung, rung * REDUCTION
    return total + candidates * (epochs - done)


def _promoted(candidates: float) -> float:
    """How many of those that reach a rung go on; between whole numbers linear."""
    chances = [max(1, k // REDUCTION) / k for k in range(1, math.ceil(candidates) + 1)]
    whole = int(candidates)
    return sum(chances[:whole]) + (candidates - whole) * (
        chances[whole] if whole < len(chances) else 0
    )


@dataclass(frozen=True)
class Around:
    """Seconds that a search takes beside those of its candidates.

    Args:
        worker_s: to start a worker process, once.
        choose_s: to choose a layout, for each candidate, where that waits for the one before.
        read_train_s, read_others_s: to decode training and other images, once.
    """

    worker_s: float = 0.0
    choose_s: float = 0.0
    read_train_s: float = 0.0
    read_others_s: float = 0.0


@dataclass(frozen=True)
class Extras:
    """What is trained beside the candidates.

    Args:
        baselines: costs of the published backbones, one for each training.
        replicates: number of repetitions of candidates.
        epochs: that each of them is trained for.
    """

    baselines: Sequence[CandidateCost]
    replicates: int
    epochs: float


NO_EXTRAS = Extras((), 0, 0)


@dataclass(frozen=True)
class SearchCost:
    """Predicted seconds of a search.

    Args:
        train_s: of training alone, summed over all trainings.
        candidates_s: of everything that workers do, summed over all trainings.
        wall_s: from the start of the first training to the end of the last.
    """

    train_s: float
    candidates_s: float
    wall_s: float


def search_cost(
    first: Sequence[CandidateCost],
    sample: Sequence[CandidateCost],
    candidates: int,
    epochs: float,
    concurrent: int,
    around: Around,
    extras: Extras = NO_EXTRAS,
) -> SearchCost:
    """Predict a search of which only the first candidates are known.

    Args:
        first: costs of the first candidates.
        sample: costs of layouts of the space; candidates after the first are as these on average.
        candidates: how many there are in all.
        epochs: that each is trained for, on average.
        concurrent: trainings at a time.
        around: seconds beside those of the candidates.
        extras: what is trained after the candidates.
    """
    rest = candidates - len(first)
    average = CandidateCost(*np.mean([astuple(cost) for cost in sample], axis=0).tolist())
    known = [(cost, epochs) for cost in [*first, *[average] * rest]]
    known += [(cost, extras.epochs) for cost in [*extras.baselines, *[average] * extras.replicates]]
    each_s = [cost.total_s(trained) for cost, trained in known]
    read_s = around.read_train_s + around.read_others_s
    return SearchCost(
        train_s=sum(trained * cost.train_s for cost, trained in known) + around.read_train_s,
        candidates_s=sum(each_s) + read_s,
        wall_s=around.worker_s
        + read_s
        + makespan_s([seconds + around.choose_s for seconds in each_s], concurrent),
    )


def makespan_s(seconds: Sequence[float], at_once: int) -> float:
    """Seconds until the last training ends, if `at_once` of them run and each next one starts as
    soon as one has ended.

    Args:
        seconds: of each training, in their order.
        at_once: how many run at the same time.
    """
    ends = [0.0] * at_once
    for each in seconds:
        heapq.heapreplace(ends, ends[0] + each)
    return max(ends)
