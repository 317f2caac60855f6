"""How many candidates run at once, and what each of them gets."""

from __future__ import annotations

import math
import subprocess
from dataclasses import dataclass

from nas.errors import SpecError
from nas.gpu import card_share_bytes
from nas.spec import RunSpec
from nas.units import MIB, gib

EIGHTHS = 8  # shares of a GPU are multiples of 1/8, so that workers can be used again
CPU_CONCURRENT = 4  # more at once leave the sampler little to learn from


@dataclass(frozen=True)
class Share:
    """Of one candidate."""

    concurrent: int
    cpus: int
    gpus: float


def plan(run: RunSpec, *, cpus: int, gpus: float, card_bytes: int | None = None, budget_bytes: int = 0) -> Share:
    """Divide a machine or cluster of `cpus` cores and `gpus` GPUs of `card_bytes` memory each (None: unknown).

    Without a GPU, candidates get one core each before any gets two: two on one core each take less time than one after the
    other on two. With GPUs, a candidate gets as many eighths of a card as the budget, the allocator's margin and the CUDA
    context take, so that a large card runs several at once; a whole one where its memory is unknown.

    Raises:
        SpecError: more asked for than there is, which Ray would wait for without a word.
    """
    per_trial = run.gpus_per_trial if run.gpus_per_trial != "auto" else _booked(gpus, card_bytes, budget_bytes)
    if per_trial > gpus:
        raise SpecError(f"run.gpus_per_trial must be at most the {gpus:g} GPUs there are; got {per_trial:g}")
    possible = _at_once(per_trial, gpus) if per_trial else min(cpus, CPU_CONCURRENT)
    concurrent = run.concurrent if run.concurrent != "auto" else max(1, min(possible, cpus))
    if per_trial and concurrent > possible:
        raise SpecError(f"run.concurrent must be at most {possible} with {gpus:g} GPUs at {per_trial:g} each; got {concurrent}")
    share = run.cpus_per_trial if run.cpus_per_trial != "auto" else max(1, cpus // concurrent)
    if concurrent * share > cpus:
        raise SpecError(
            f"run.concurrent times run.cpus_per_trial must be at most the {cpus} cores there are; got {concurrent} x {share}"
        )
    return Share(concurrent, share, per_trial)


def smallest_card_bytes() -> int | None:
    """Memory of the smallest GPU, asked of the driver's own tool: PyTorch would open a CUDA context to answer."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
        return min(int(line) for line in said.split()) * MIB
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _booked(gpus: float, card_bytes: int | None, budget_bytes: int) -> float:
    if gpus < 1 or card_bytes is None:
        return float(gpus >= 1)
    needed = card_share_bytes(budget_bytes)
    if needed > card_bytes:
        raise SpecError(
            f"the budget of {gib(budget_bytes)} GiB takes up to {gib(needed)} GiB of a GPU, with what the allocator and CUDA "
            f"add; the GPU has {gib(card_bytes)} GiB: lower budget.memory, or set run.gpus_per_trial"
        )
    return math.ceil(EIGHTHS * needed / card_bytes) / EIGHTHS


def _at_once(per_trial: float, gpus: float) -> int:
    """How many fit: one candidate never gets pieces of two cards."""
    return int(gpus) * int(1 / per_trial) if per_trial <= 1 else int(gpus / per_trial)
