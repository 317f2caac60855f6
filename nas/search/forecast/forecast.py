"""What a search will cost, before it is submitted: a few layouts are measured here, the others
follow from the runtime model.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nas.config.spec import SearchSpec
from nas.data.samplers import AspectRatioBatchSampler
from nas.data.splits import Splits
from nas.data.transforms import train_transforms
from nas.reports.forecast import EpochTime, ForecastTotals, SearchForecast, Timing
from nas.search.budget import Budget
from nas.search.forecast.benchmark import few_images, read_s, time_layouts
from nas.search.forecast.candidates import baselines, first_suggestions
from nas.search.forecast.forecast_cache import machine
from nas.search.forecast.runtime_model import (
    Around,
    CandidateCost,
    CostModel,
    Extras,
    SearchCost,
    Work,
    expected_epochs,
    search_cost,
)
from nas.search.layout_sample import LayoutCost, evenly_spaced, uniform_sample
from nas.study.leaderboard import TOP
from nas.training.candidate import Candidate
from nas.utils.device import default_device
from nas.utils.gpu_share import cap_bytes
from nas.utils.progress import CountProgress

MEASURED = 5  # layouts
RAY_START_S = 3.0  # ray.init: 2.5 s on an idle machine of two cores


@dataclass(frozen=True)
class Slots:
    """Where candidates run.

    Args:
        concurrent: trainings at a time.
        cpus, threads, gpus: what each of them has; below 1, a share of a GPU.
        side_by_side: how many of them share a GPU, or this machine's cores; as many are measured
            at the same time.
        local: without Ray.
        warning: why candidates may run out of memory; empty where they should not.
    """

    concurrent: int
    cpus: int
    threads: int
    gpus: float
    side_by_side: int
    local: bool
    warning: str = ""

    @property
    def per_gpu(self) -> int | None:
        """Candidates that share a GPU; None without GPUs."""
        return max(1, int(1 / self.gpus)) if self.gpus else None


def forecast(
    budget: Budget, splits: Splits, slots: Slots, on_layout: CountProgress
) -> SearchForecast | None:
    """Measure a few layouts on this machine and predict what the search will take.

    Args:
        budget: of the search, with its request and the data set in a few figures.
        splits: the data set, checked.
        slots: where candidates will run.
        on_layout: told of every measurement: what is counted, how many are done, and of how many.

    Returns:
        The forecast, without notes; None where nothing fits into the budget.

    Raises:
        UserError, CandidateError: as the training of a candidate.
    """
    began_s, spec = time.perf_counter(), budget.spec
    first, candidates = first_suggestions(budget)
    if not first:
        return None
    choose_s = (time.perf_counter() - began_s) / len(first)
    sample = uniform_sample(budget) or first
    timings, worker_s = _measured(budget, splits, slots, evenly_spaced(sample, MEASURED), on_layout)
    model, work = CostModel.fit(timings), work_of(spec, splits)
    ours, others, published = (
        [model(each.flops, each.memory_bytes, work) for each in some]
        for some in (first, sample, baselines(budget))
    )
    extras = _extras(spec, published, candidates)
    around = Around(worker_s, choose_s if slots.local else 0.0, *_reading_s(spec, splits))
    small, median, large = _epoch_times(sample, others)
    low, high = _totals(budget, slots, ours, others, candidates, around, extras)
    return SearchForecast(
        trials=candidates,
        baselines=len(extras.baselines),
        replicates=extras.replicates,
        **machine(),
        local=slots.local,
        concurrent=slots.concurrent,
        cpus_per_trial=slots.cpus,
        threads_per_trial=slots.threads,
        gpus_per_trial=slots.gpus,
        candidates_per_gpu=slots.per_gpu,
        measured_side_by_side=slots.side_by_side,
        steps_per_epoch=work.steps,
        scored_images_per_epoch=len(splits.val.images),
        epochs_are_a_limit=spec.recipe.schedule == "saturate",
        small=small,
        median=median,
        large=large,
        candidate_s_spread=_relative_spread(others, high.epochs_per_trial),
        low=low,
        high=high,
        start_s=0.0 if slots.local else RAY_START_S,
        coefficients=model.coefficients,
        measured=tuple(timings),
        measuring_s=time.perf_counter() - began_s,
    )


def _measured(
    budget: Budget,
    splits: Splits,
    slots: Slots,
    chosen: Sequence[LayoutCost],
    on_layout: CountProgress,
) -> tuple[list[Timing], float]:
    """Timings, and the seconds that a worker process takes to start."""
    jobs = [(candidate_of(budget, each), each.flops, each.memory_bytes) for each in chosen]
    return time_layouts(
        jobs,
        few_images(splits, budget.spec.recipe.batch),
        at_once=slots.side_by_side,
        threads=slots.threads,
        on_timing=partial(on_layout, "speed"),
    )


def candidate_of(budget: Budget, each: LayoutCost) -> Candidate:
    """The training of a layout in a search, to be measured on this machine."""
    return Candidate.from_spec(
        each.layout,
        budget.spec,
        budget.facts,
        Path(),
        device=default_device(),
        cap_bytes=cap_bytes(budget.limit_bytes),
    )


def work_of(spec: SearchSpec, splits: Splits) -> Work:
    """Count what a candidate of a request does."""
    processes = spec.run.processes
    at_once = spec.recipe.images_at_once(processes)
    batches = len(AspectRatioBatchSampler(splits.train.images, at_once, spec.search.seed))
    tested = len(splits.test.images) if splits.test else 0
    return Work(
        math.ceil(batches / (spec.recipe.batch // at_once)),
        len(splits.val.images) * spec.recipe.scored_epochs / spec.recipe.epochs,
        tested,
        processes,
    )


def _reading_s(spec: SearchSpec, splits: Splits) -> tuple[float, float]:
    """To decode training and other images that are not kept yet; where nothing is ever kept, steps
    have it in them.
    """
    recipe, others = spec.recipe, [split for split in splits[1:] if split]
    if not spec.run.image_cache:
        return 0.0, 0.0
    train_s = read_s(splits.train, *train_transforms(recipe).cached_sides)
    return train_s, sum(read_s(split, recipe.image_size, recipe.long_side) for split in others)


def _epoch_times(
    sample: Sequence[LayoutCost], costs: Sequence[CandidateCost]
) -> tuple[EpochTime, EpochTime, EpochTime]:
    """The quickest, the median and the slowest of the sample."""
    ordered = sorted(zip(costs, sample, strict=True), key=lambda pair: pair[0].epoch_s)
    small, median, large = (
        EpochTime(str(ordered[index][1].layout), ordered[index][0].epoch_s)
        for index in (0, len(ordered) // 2, -1)
    )
    return small, median, large


def _relative_spread(costs: Sequence[CandidateCost], epochs: float) -> float:
    """Standard deviation of the candidates' times, divided by their mean."""
    seconds = [cost.total_s(epochs) for cost in costs]
    return statistics.pstdev(seconds) / statistics.fmean(seconds)


def _extras(spec: SearchSpec, published: list[CandidateCost], candidates: int) -> Extras:
    again = spec.search.replicates
    return Extras(published * again, min(TOP, candidates) * (again - 1), spec.recipe.epochs)


def _totals(
    budget: Budget,
    slots: Slots,
    first: list[CandidateCost],
    sample: list[CandidateCost],
    candidates: int,
    around: Around,
    extras: Extras,
) -> tuple[ForecastTotals, ForecastTotals]:
    """The whole search with the fewest and with the most epochs that the pruner may leave."""
    recipe, pruner = budget.spec.recipe, budget.spec.search.pruner
    warmup = recipe.unjudged_epochs(budget.facts.train_images)
    low, high = (
        _totals_at(
            epochs,
            slots,
            search_cost(first, sample, candidates, epochs, slots.concurrent, around, extras),
        )
        for epochs in expected_epochs(pruner, recipe.epochs, warmup, candidates)
    )
    return low, high


def _totals_at(epochs: float, slots: Slots, cost: SearchCost) -> ForecastTotals:
    return ForecastTotals(
        epochs_per_trial=epochs,
        train_s=cost.train_s,
        candidates_s=cost.candidates_s,
        wall_s=cost.wall_s,
        cpu_hours=cost.candidates_s * slots.cpus / 3600,
        gpu_hours=cost.candidates_s * slots.gpus / 3600,
    )
