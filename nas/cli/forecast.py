"""What a search will cost: measured here for `nas submit --dry-run`, and said in a table."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.table import Table

from nas.utils.formatting import duration_range_text, duration_text, percent

if TYPE_CHECKING:
    from nas.cli.progress import ImageProgress
    from nas.config.spec import SearchSpec
    from nas.data.splits import Splits
    from nas.reports.forecast import SearchForecast
    from nas.search.budget import Budget
    from nas.search.forecast.forecast import Slots


def measured_cost(
    budget: Budget, splits: Splits, progress: ImageProgress, *, local: bool
) -> SearchForecast | None:
    """Measure a few layouts and predict what a search will take, with notes on how to read it.

    The forecast is kept on this machine, for the search of the same request.

    Returns:
        The forecast; None where nothing fits into the budget.

    Raises:
        UserError: the request asks for more than this machine has, or a candidate cannot be
            trained.
    """
    from nas.errors import CandidateError, StudyError
    from nas.search.forecast.forecast import forecast
    from nas.search.forecast.forecast_cache import remember

    spec = budget.spec
    slots = slots_of(spec, budget.limit_bytes, local=local)
    try:
        predicted = forecast(budget, splits, slots, progress.on_image)
    except CandidateError as error:
        raise StudyError(
            f"a layout could not be measured: {error}; --no-timing leaves the measurement out"
        ) from None
    if predicted is None:
        return None
    remember(spec, budget.facts, local, predicted)
    return replace(predicted, notes=tuple(_notes(spec, predicted)))


def slots_of(spec: SearchSpec, budget_bytes: int, *, local: bool) -> Slots:
    """How this machine would run candidates; of a cluster only how many are asked for at once is
    known.

    Raises:
        SpecError: the request asks for more than there is.
    """
    import torch

    from nas.search.forecast.forecast import Slots
    from workers.resources import Node, plan, smallest_card_bytes

    cores, gpus = os.cpu_count() or 1, float(torch.cuda.device_count())
    if local:
        threads = torch.get_num_threads()
        return Slots(1, threads, threads, min(gpus, 1.0), 1, local=True)
    if _elsewhere(spec):
        concurrent = 1 if spec.run.concurrent == "auto" else spec.run.concurrent
        return Slots(concurrent, cores, cores, min(gpus, 1.0), 1, local=False)
    share = plan(
        spec.run, [Node(cores, gpus, smallest_card_bytes() if gpus else None)], budget_bytes
    )
    asked = os.environ.get(
        "OMP_NUM_THREADS", ""
    )  # Ray sets it to the cores of a candidate where nobody has
    threads = int(asked) if asked.isdigit() else share.cpus
    side_by_side = min(
        share.concurrent, max(1, int(1 / share.gpus)) if share.gpus else share.concurrent
    )
    return Slots(share.concurrent, share.cpus, threads, share.gpus, side_by_side, local=False)


def cost_table(cost: SearchForecast) -> Table:
    """What a search will take, as a table of words and values."""
    table = Table(title="What it will cost", show_header=False)
    table.add_column("what")
    table.add_column("value", overflow="fold")
    for name, value in _cost_rows(cost):
        table.add_row(name, value)
    for text in cost.notes:
        table.add_row("note", text)
    return table


def _cost_rows(cost: SearchForecast) -> Iterator[tuple[str, str]]:
    low, high = cost.low, cost.high
    quickest, median, slowest = (
        f"{duration_text(each.epoch_s)} ({each.layout})"
        for each in (cost.small, cost.median, cost.large)
    )
    yield "an epoch", f"quickest {quickest}, median {median}, slowest {slowest}"
    yield (
        "candidates",
        f"{cost.trials}, of {_epochs(cost)} epochs each, {cost.concurrent} at once",
    )
    if extra := cost.baselines + cost.replicates:
        yield (
            "beside them",
            f"{extra} trainings: {cost.baselines} of baselines, {cost.replicates} again",
        )
    yield "training", f"{duration_range_text(low.train_s, high.train_s)} in all"
    yield (
        "workers' time",
        f"{duration_range_text(low.candidates_s, high.candidates_s)} in all, with building, "
        f"scoring and checkpoints: {_hours(cost)}",
    )
    start = f", and {cost.start_s:.0f} s to start Ray" if cost.start_s else ""
    yield "wall time", duration_range_text(low.wall_s, high.wall_s) + start
    if cost.candidates_per_gpu:
        yield "candidates per GPU", str(cost.candidates_per_gpu)
    layouts = {timing.layout for timing in cost.measured}
    where = f"{cost.device} ({cost.cpu}), {cost.threads_per_trial} threads each"
    yield "measured", f"{len(layouts)} layouts in {cost.measuring_s:.0f} s on {where}"


def _epochs(cost: SearchForecast) -> str:
    low, high = cost.low.epochs_per_trial, cost.high.epochs_per_trial
    return ("at most " if cost.epochs_are_a_limit else "") + (
        f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    )


def _hours(cost: SearchForecast) -> str:
    ends = (cost.low, cost.high)
    hours = [end.gpu_hours if cost.gpus_per_trial else end.cpu_hours for end in ends]
    low, high = (f"{each:.3g}" for each in hours)
    return (low if low == high else f"{low} to {high}") + (
        " GPU-hours" if cost.gpus_per_trial else " CPU-hours"
    )


def _notes(spec: SearchSpec, cost: SearchForecast) -> list[str]:
    notes = [
        "candidates of this space differ: the standard deviation of their time is "
        f"{percent(cost.candidate_s_spread)} %"
    ]
    if spec.search.pruner == "median":
        notes.append(
            "what the median pruner stops depends on the scores: the range is from all that it "
            "can stop to nothing"
        )
    if spec.search.pruner == "hyperband":
        whom = "a candidate of median FLOPs" if spec.search.prune_at == "cost" else "a candidate"
        notes.append(
            f"epochs are those that Hyperband is expected to leave {whom}, if scores come in "
            "random order"
        )
    if cost.epochs_are_a_limit:
        notes.append("the schedule ends by itself: epochs and times are the most that it can take")
    if _elsewhere(spec):
        notes.append(
            "measured on this machine, one candidate alone; those of the cluster may be faster or "
            "slower"
        )
    return notes


def _elsewhere(spec: SearchSpec) -> bool:
    return bool(spec.run.cluster or os.environ.get("RAY_ADDRESS"))
