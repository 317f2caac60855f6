"""What a search will cost: measured here for `nas submit --dry-run`, and said in a table."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from rich.table import Table

from nas.search.forecast.actuals import span_text
from nas.utils.formatting import duration_text, percent

if TYPE_CHECKING:
    from nas.cli.progress import ImageProgress
    from nas.config.spec import SearchSpec
    from nas.data.splits import Splits
    from nas.reports import DatasetSummary
    from nas.search.forecast.forecast import Slots


def measured_cost(
    spec: SearchSpec, splits: Splits, facts: DatasetSummary, progress: ImageProgress, *, local: bool
) -> dict[str, Any] | None:
    """See `nas.search.forecast.forecast.forecast`; kept for the search itself, unless that runs
    elsewhere.

    Raises:
        UserError: the request asks for more than this machine has, or a candidate cannot be
            trained.
    """
    from nas.errors import CandidateError, StudyError
    from nas.search.budget import Budget
    from nas.search.forecast.forecast import forecast, remember

    slots = slots_of(spec, Budget(spec, facts).limit_bytes, local=local)
    try:
        found = forecast(spec, splits, facts, slots, progress.on_image)
    except CandidateError as error:
        raise StudyError(
            f"a layout could not be measured: {error}; --no-timing leaves the measurement out"
        ) from None
    if found:
        remember(spec, facts, local, found)
        found["notes"] = _notes(spec, found)
    return found


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


def cost_table(cost: dict[str, Any]) -> Table:
    """The cost on the terminal."""
    table = Table(title="What it will cost", show_header=False)
    table.add_column("what")
    table.add_column("value", overflow="fold")
    sizes = [
        f"{duration_text(cost[f'epoch_s_{size}'])} ({cost[f'layout_{size}']})"
        for size in ("small", "median", "large")
    ]
    whole, start_s, layouts = (
        span_text(cost, "candidates_s"),
        cost["start_s"],
        {each["layout"] for each in cost["measured"]},
    )
    table.add_row("an epoch", "quickest {}, median {}, slowest {}".format(*sizes))
    table.add_row(
        "candidates",
        f"{cost['trials']}, of {_epochs(cost)} epochs each, {cost['concurrent']} at once",
    )
    if beside := cost["baselines"] + cost["replicates"]:
        table.add_row(
            "beside them",
            f"{beside} trainings: {cost['baselines']} of baselines, {cost['replicates']} again",
        )
    table.add_row("training", f"{span_text(cost, 'train_s')} in all")
    table.add_row(
        "workers' time", f"{whole} in all, with building, scoring and checkpoints: {_hours(cost)}"
    )
    table.add_row(
        "wall time",
        span_text(cost, "wall_s") + (f", and {start_s:.0f} s to start Ray" if start_s else ""),
    )
    if cost["candidates_per_gpu"]:
        table.add_row("candidates per GPU", str(cost["candidates_per_gpu"]))
    where = f"{cost['device']} ({cost['cpu']}), {cost['threads_per_trial']} threads each"
    table.add_row("measured", f"{len(layouts)} layouts in {cost['measuring_s']:.0f} s on {where}")
    for text in cost["notes"]:
        table.add_row("note", text)
    return table


def _epochs(cost: dict[str, Any]) -> str:
    low, high = cost["epochs_per_trial_low"], cost["epochs_per_trial_high"]
    return ("at most " if cost["epochs_are_a_limit"] else "") + (
        f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    )


def _hours(cost: dict[str, Any]) -> str:
    kind = "gpu" if cost["gpus_per_trial"] else "cpu"
    low, high = (f"{cost[f'{kind}_hours_{end}']:.3g}" for end in ("low", "high"))
    return f"{low if low == high else f'{low} to {high}'} {kind.upper()}-hours"


def _notes(spec: SearchSpec, cost: dict[str, Any]) -> list[str]:
    notes = [
        "candidates of this space differ: the standard deviation of their time is "
        f"{percent(cost['candidate_s_spread'])} %"
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
    if cost["epochs_are_a_limit"]:
        notes.append("the schedule ends by itself: epochs and times are the most that it can take")
    if _elsewhere(spec):
        notes.append(
            "measured on this machine, one candidate alone; those of the cluster may be faster or "
            "slower"
        )
    return notes


def _elsewhere(spec: SearchSpec) -> bool:
    return bool(spec.run.cluster or os.environ.get("RAY_ADDRESS"))
