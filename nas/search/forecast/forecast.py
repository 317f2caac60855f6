"""What a search will cost, before it is submitted: a few layouts are measured here, the others
follow from the cost model.

A forecast is kept on this machine, so that a search of the same request can put it into its study.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import torch

from nas.config.spec import SearchSpec
from nas.data.samplers import AspectRatioBatchSampler
from nas.data.splits import Splits
from nas.profiling.memory.gpu_share import cap_bytes
from nas.reports import DatasetSummary
from nas.search.budget import Budget
from nas.search.forecast.benchmark import few_images, read_s, time_layouts
from nas.search.forecast.candidates import baselines, first_suggestions
from nas.search.forecast.runtime_model import (
    Around,
    CandidateCost,
    CostModel,
    Extras,
    Timing,
    Work,
    expected_epochs,
    search_cost,
)
from nas.search.layout_sample import LayoutCost, spread, uniform_sample
from nas.study.leaderboard import TOP
from nas.training.candidate import Candidate
from nas.utils.device import default_device, hardware
from nas.utils.disk_cache import keep, kept
from nas.utils.progress import CountProgress

MEASURED = 5  # layouts
RAY_START_S = 3.0  # ray.init: 2.5 s on an idle machine of two cores
_DETAILS = ("measured", "coefficients")


@dataclass(frozen=True)
class Slots:
    """Where candidates run: how many at once, and with how many cores, threads and GPUs each.
    `side_by_side` of them share a GPU, or this machine's cores, and are measured together; `local`
    is without Ray.
    """

    concurrent: int
    cpus: int
    threads: int
    gpus: float
    side_by_side: int
    local: bool

    @property
    def per_gpu(self) -> int | None:
        """Candidates that share a GPU."""
        return max(1, int(1 / self.gpus)) if self.gpus else None


def forecast(
    spec: SearchSpec, splits: Splits, facts: DatasetSummary, slots: Slots, on_layout: CountProgress
) -> dict[str, Any] | None:
    """Measure a few layouts and say what the search will take; None where nothing fits into the
    budget.

    Returns:
        Plain JSON with units in the names, `_low` and `_high` where pruning leaves a range.
        `train_s` and `candidates_s` are sums over the candidates, of training alone and of
        everything; `wall_s` is from the start of the first candidate to the end of the last,
        `start_s` what comes before. `candidate_s_spread` is the standard deviation over the space,
        relative to the mean.

    Raises:
        UserError, CandidateError: as the training of a candidate.
    """
    began_s, budget = time.perf_counter(), Budget(spec, facts)
    first, candidates = first_suggestions(budget)
    if not first:
        return None
    choose_s = (time.perf_counter() - began_s) / len(first)
    sample = uniform_sample(budget) or first
    timings, worker_s = _measured(budget, splits, slots, spread(sample, MEASURED), on_layout)
    model, work = CostModel.fit(timings), _work(spec, splits)
    ours, others, published = (
        [model(each.flops, each.memory_bytes, work) for each in some]
        for some in (first, sample, baselines(budget))
    )
    extras = _extras(spec, published, candidates)
    around = Around(worker_s, choose_s if slots.local else 0.0, *_reading_s(spec, splits))
    return {
        "trials": candidates,
        "baselines": len(extras.baselines),
        "replicates": extras.replicates,
        **_where(slots),
        **_work_done(spec, work),
        **_sizes(sample, others),
        **_totals(budget, slots, ours, others, candidates, around, extras),
        "coefficients": model.coefficients,
        "measured": [asdict(timing) for timing in timings],
        "measuring_s": time.perf_counter() - began_s,
    }


def remember(spec: SearchSpec, facts: DatasetSummary, local: bool, found: dict[str, Any]) -> None:
    """Keep a forecast for a search of the same request on this machine."""
    keep(
        "forecast",
        _key(spec, facts, local),
        {name: value for name, value in found.items() if name not in _DETAILS},
    )


def recall(spec: SearchSpec, facts: DatasetSummary, local: bool) -> dict[str, Any] | None:
    """The latest forecast for this request on this machine, without its details; None where there
    was none.
    """
    return kept("forecast", _key(spec, facts, local))


def note_forecast(
    study: optuna.Study, spec: SearchSpec, facts: DatasetSummary, local: bool
) -> None:
    """Put what was predicted for this request, if anything was, into the attributes of its
    study.
    """
    if predicted := recall(spec, facts, local):
        study.set_user_attr("nas_cost_predicted", predicted)


def _key(spec: SearchSpec, facts: DatasetSummary, local: bool) -> dict[str, Any]:
    asked = spec.model_dump(
        mode="json",
        exclude={"study": True, "storage": True, "data": True, "run": {"output", "cluster"}},
    )
    return {"request": asked, "data": facts.fingerprint, "local": local, "hardware": _machine()}


def _machine() -> dict[str, Any]:
    found = hardware(torch.device(default_device()))
    return {"device": found["device"], "cpu": found["cpu"], "cores": os.cpu_count()}


def _measured(
    budget: Budget,
    splits: Splits,
    slots: Slots,
    chosen: Sequence[LayoutCost],
    on_layout: CountProgress,
) -> tuple[list[Timing], float]:
    """Timings, and the seconds that a worker process takes to start."""
    jobs = [(_candidate(budget, each), each.flops, each.memory_bytes) for each in chosen]
    return time_layouts(
        jobs,
        few_images(splits, budget.spec.recipe.batch),
        at_once=slots.side_by_side,
        threads=slots.threads,
        on_timing=partial(on_layout, "speed"),
    )


def _candidate(budget: Budget, each: LayoutCost) -> Candidate:
    spec = budget.spec
    return Candidate(
        each.layout,
        spec.detector,
        spec.recipe,
        spec.calibration,
        budget.facts.num_classes,
        spec.search.seed,
        Path(),
        default_device(),
        cap_bytes(budget.limit_bytes),
        cache_bytes=spec.run.image_cache,
    )


def _work(spec: SearchSpec, splits: Splits) -> Work:
    processes = spec.run.processes
    at_once = spec.recipe.images_at_once(processes)
    batches = len(AspectRatioBatchSampler(splits.train.images, at_once, spec.search.seed))
    tested = len(splits.test.images) if splits.test else 0
    return Work(
        math.ceil(batches / (spec.recipe.batch // at_once)),
        len(splits.val.images),
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
    train_s = read_s(splits.train, max(recipe.short_sides), recipe.long_side)
    return train_s, sum(read_s(split, recipe.image_size, recipe.long_side) for split in others)


def _where(slots: Slots) -> dict[str, Any]:
    return {
        **_machine(),
        "local": slots.local,
        "concurrent": slots.concurrent,
        "cpus_per_trial": slots.cpus,
        "threads_per_trial": slots.threads,
        "gpus_per_trial": slots.gpus,
        "candidates_per_gpu": slots.per_gpu,
        "measured_side_by_side": slots.side_by_side,
    }


def _work_done(spec: SearchSpec, work: Work) -> dict[str, Any]:
    ends_itself = spec.recipe.schedule == "saturate"
    return {
        "steps_per_epoch": work.steps,
        "scored_images_per_epoch": work.scored,
        "epochs_are_a_limit": ends_itself,
    }


def _sizes(sample: Sequence[LayoutCost], costs: Sequence[CandidateCost]) -> dict[str, Any]:
    """The quickest, the median and the slowest of the sample."""
    ordered = sorted(zip(costs, sample, strict=True), key=lambda pair: pair[0].epoch_s)
    found: dict[str, Any] = {}
    for name, place in (("small", 0), ("median", len(ordered) // 2), ("large", -1)):
        found |= {
            f"layout_{name}": str(ordered[place][1].layout),
            f"epoch_s_{name}": ordered[place][0].epoch_s,
        }
    return found


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
) -> dict[str, float]:
    recipe, pruner = budget.spec.recipe, budget.spec.search.pruner
    warmup = recipe.warmup_epochs(budget.facts.train_images)
    ends = dict(
        zip(
            ("low", "high"), expected_epochs(pruner, recipe.epochs, warmup, candidates), strict=True
        )
    )
    totals = [cost.total_s(ends["high"]) for cost in sample]
    found = {"candidate_s_spread": statistics.pstdev(totals) / statistics.fmean(totals)}
    for end, epochs in ends.items():
        cost = search_cost(first, sample, candidates, epochs, slots.concurrent, around, extras)
        found |= {
            f"epochs_per_trial_{end}": epochs,
            **{f"{name}_{end}": value for name, value in asdict(cost).items()},
        }
        found[f"cpu_hours_{end}"] = cost.candidates_s * slots.cpus / 3600
        found[f"gpu_hours_{end}"] = cost.candidates_s * slots.gpus / 3600
    return found | {"start_s": 0.0 if slots.local else RAY_START_S}
