"""How many candidates run at once, and what each of them gets."""

from __future__ import annotations

from dataclasses import dataclass

from nas.errors import SpecError
from nas.spec import RunSpec

CPU_CONCURRENT = 4  # more at once leave the sampler little to learn from


@dataclass(frozen=True)
class Share:
    """Of one candidate."""

    concurrent: int
    cpus: int
    gpus: float


def plan(run: RunSpec, *, cpus: int, gpus: float) -> Share:
    """Divide a machine or cluster of `cpus` cores and `gpus` GPUs.

    Without a GPU, candidates get one core each before any gets two: two on one core each take less time than one after the
    other on two. With GPUs, every candidate gets one.

    Raises:
        SpecError: more asked for than there is, which Ray would wait for without a word.
    """
    per_trial = run.gpus_per_trial if run.gpus_per_trial != "auto" else float(gpus >= 1)
    if per_trial > gpus:
        raise SpecError(f"run.gpus_per_trial must be at most the {gpus:g} GPUs there are; got {per_trial:g}")
    possible = int(gpus / per_trial) if per_trial else min(cpus, CPU_CONCURRENT)
    concurrent = run.concurrent if run.concurrent != "auto" else max(1, possible)
    if per_trial and concurrent * per_trial > gpus:
        raise SpecError(f"run.concurrent must be at most {possible} with {gpus:g} GPUs at {per_trial:g} each; got {concurrent}")
    share = run.cpus_per_trial if run.cpus_per_trial != "auto" else max(1, cpus // concurrent)
    if concurrent * share > cpus:
        raise SpecError(
            f"run.concurrent times run.cpus_per_trial must be at most the {cpus} cores there are; got {concurrent} x {share}"
        )
    return Share(concurrent, share, per_trial)
