"""How many candidates run at once, and what each of them gets."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.config.sections import RunSpec
from nas.config.spec import SearchSpec
from nas.errors import SpecError
from nas.utils.device import gpu_count
from nas.utils.gpu_presence import smallest_card_bytes
from nas.utils.gpu_share import card_share_bytes, check_share

if TYPE_CHECKING:
    from nas.search.forecast.forecast import Slots

EIGHTHS = 8  # shares of a GPU are multiples of 1/8, so that workers can be used again
CPU_CONCURRENT = 4  # more at once leave the sampler little to learn from


@dataclass(frozen=True)
class TrialResources:
    """How candidates share the machines.

    Attributes:
        concurrent: how many train at once.
        cpus: cores of each.
        gpus: GPUs of each, a multiple of 1/8 below 1.
        warning: why candidates may run out of memory; empty where they should not.
    """

    concurrent: int
    cpus: int
    gpus: float
    warning: str = ""


@dataclass(frozen=True)
class Node:
    """What one machine offers.

    Attributes:
        cpus: cores.
        gpus: number of GPUs.
        card_bytes: memory of its smallest GPU, None where there is none or it is not known.
    """

    cpus: int
    gpus: float = 0.0
    card_bytes: int | None = None

    def at_once(self, cpus: int, gpus: float) -> int:
        """Count the candidates with such a share that fit: one never gets pieces of two cards, or
        of two machines.
        """
        by_cores = self.cpus // cpus
        if not gpus:
            return by_cores
        return min(by_cores, int(self.gpus) * int(1 / gpus) if gpus <= 1 else int(self.gpus / gpus))


def plan(run: RunSpec, nodes: Sequence[Node], budget_bytes: int = 0) -> TrialResources:
    """Divide a machine or a cluster.

    Without a GPU, candidates get one core each before any gets two: two on one core each take less
    time than one after the other on two. With GPUs, a candidate gets as many eighths of a card as
    the budget, the allocator's margin and the CUDA context take, so that a large card runs several
    at once; a whole one where its memory is unknown.

    Args:
        run: what was asked for.
        nodes: the machines.
        budget_bytes: peak of allocated GPU memory of a candidate.

    Raises:
        SpecError: more asked for than there is, which Ray would wait for without a word; a budget
            that the smallest card, or the share of it that a candidate has, does not hold.
    """
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    largest = max(node.gpus for node in nodes)
    per_trial = run.gpus_per_trial if run.gpus_per_trial != "auto" else _booked(nodes, budget_bytes)
    if per_trial > largest:
        raise SpecError(
            f"run.gpus_per_trial must be at most the {largest:g} GPUs of a machine; got "
            f"{per_trial:g}"
        )
    warning = _check_card(nodes, per_trial, budget_bytes)
    possible = sum(node.at_once(1, per_trial) for node in nodes)
    automatic = max(1, possible if per_trial else min(possible, CPU_CONCURRENT))
    concurrent = run.concurrent if run.concurrent != "auto" else automatic
    if per_trial and concurrent > possible:
        raise SpecError(
            f"run.concurrent must be at most {possible} with {gpus:g} GPUs at {per_trial:g} each; "
            f"got {concurrent}"
        )
    shares = (
        range(max(1, cpus // concurrent), 0, -1)
        if run.cpus_per_trial == "auto"
        else (run.cpus_per_trial,)
    )
    for share in shares:
        if sum(node.at_once(share, per_trial) for node in nodes) >= concurrent:
            return TrialResources(concurrent, share, per_trial, warning)
    where = f"the {cpus} cores there are" + (
        f", each within one of {len(nodes)} machines" if len(nodes) > 1 else ""
    )
    raise SpecError(
        f"run.concurrent times run.cpus_per_trial must be at most {where}; got {concurrent} x "
        f"{shares[-1]}"
    )


def slots_of(spec: SearchSpec, budget_bytes: int, *, local: bool) -> Slots:
    """Predict how this machine would run the candidates of a search; of a cluster only how many are
    asked for at once is known.

    Args:
        spec: the request.
        budget_bytes: peak training memory of a candidate.
        local: without Ray.

    Raises:
        SpecError: the request asks for more than there is.
    """
    from nas.search.forecast.forecast import Slots

    cores, gpus = os.cpu_count() or 1, float(gpu_count())
    if local:
        import torch

        own, threads = this_process(budget_bytes), torch.get_num_threads()
        return Slots(1, threads, threads, own.gpus, 1, local=True, warning=own.warning)
    if runs_elsewhere(spec):
        concurrent = 1 if spec.run.concurrent == "auto" else spec.run.concurrent
        return Slots(concurrent, cores, cores, min(gpus, 1.0), 1, local=False)
    node = Node(cores, gpus, smallest_card_bytes() if gpus else None)
    share = plan(spec.run, [node], budget_bytes)
    # Ray sets it to the cores of a candidate where nobody has.
    requested_threads = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(requested_threads) if requested_threads.isdigit() else share.cpus
    per_gpu = max(1, int(1 / share.gpus)) if share.gpus else share.concurrent
    side_by_side = min(share.concurrent, per_gpu)
    return Slots(
        share.concurrent,
        share.cpus,
        threads,
        share.gpus,
        side_by_side,
        local=False,
        warning=share.warning,
    )


def this_process(budget_bytes: int) -> TrialResources:
    """What a candidate has that this process trains: all cores, and a GPU where there is one.

    Raises:
        SpecError: a budget that the GPU does not hold.
    """
    gpus = float(min(gpu_count(), 1))
    node = Node(1, gpus, smallest_card_bytes() if gpus else None)
    warning = _check_card([node], gpus, budget_bytes)
    return TrialResources(1, os.cpu_count() or 1, gpus, warning)


def runs_elsewhere(spec: SearchSpec) -> bool:
    """Tell whether a search runs on a Ray cluster, not on this machine alone."""
    return bool(spec.run.cluster or os.environ.get("RAY_ADDRESS"))


def _booked(nodes: Sequence[Node], budget_bytes: int) -> float:
    """The share of a GPU that a budget takes, in eighths; whole ones where a card is unknown."""
    card_bytes = _smallest_card(nodes)
    if not card_bytes:
        return float(any(node.gpus >= 1 for node in nodes))
    eighths = math.ceil(EIGHTHS * card_share_bytes(budget_bytes) / card_bytes)
    return min(eighths, EIGHTHS) / EIGHTHS


def _smallest_card(nodes: Sequence[Node]) -> int | None:
    """Memory of the smallest GPU of all machines; None where one is unknown, or there is none."""
    cards = [node.card_bytes for node in nodes if node.gpus >= 1]
    known = [card for card in cards if card]
    return min(known) if known and len(known) == len(cards) else None


def _check_card(nodes: Sequence[Node], per_trial: float, budget_bytes: int) -> str:
    card_bytes = _smallest_card(nodes)
    if not card_bytes or not per_trial:
        return ""
    share = min(per_trial, 1.0)
    part = "" if share == 1 else f"{share:g} of "
    return check_share(budget_bytes, int(share * card_bytes), f"{part}the smallest GPU")
