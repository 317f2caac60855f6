"""The forecast of a search, as `nas submit --dry-run` prints it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nas.cli.tables import TextTable
from nas.utils.formatting import duration_range_text, duration_text

if TYPE_CHECKING:
    from nas.reports.forecast import SearchForecast


def cost_table(cost: SearchForecast) -> TextTable:
    """What a search will take, as a table of words and values."""
    table = TextTable(title="What it will cost", show_header=False)
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
