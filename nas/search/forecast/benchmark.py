"""How long layouts take on this machine: their real training steps and their real scoring, on a few
of the user's images.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor

from nas.data.coco import CocoSplit
from nas.data.dataloader import loading
from nas.data.image_cache import PixelCache
from nas.data.splits import Splits
from nas.errors import NonFiniteLoss
from nas.reports.forecast import Timing
from nas.training.candidate import Candidate, begin
from nas.training.gpu_memory import free_memory, limited_memory
from nas.utils.device import num_threads, tf32
from nas.utils.working_folder import outside_working_folder

STEPS = 6  # training steps of a measurement
SCORED = 24  # images that a measurement scores
READ = 8  # images that are decoded to see how long that takes

Job = tuple[Candidate, int, int]  # a candidate, its FLOPs, its predicted bytes


def few_images(splits: Splits, batch: int, steps: int = STEPS, scored: int = SCORED) -> Splits:
    """A part of a data set that suffices for some training steps of `batch` images and for scoring
    some images; the same images every time.
    """
    return Splits(_few(splits.train, steps * batch), _few(splits.val, scored))


def time_layout(candidate: Candidate, splits: Splits, flops: int, memory_bytes: int) -> Timing:
    """Measure how long a layout takes to build, train, score and keep.

    It trains and is scored twice; the second time counts, for the first one reads images and warms
    up.

    Args:
        candidate: the layout and how it is trained; its folder is not used.
        splits: images to train on and to score, a few.
        flops: multiply-adds for one image.
        memory_bytes: predicted peak of a training step.

    Raises:
        CandidateError: the candidate cannot be trained, for lack of memory for example.
        UserError: an image cannot be read.
    """
    device = torch.device(candidate.device)
    # Two epochs, both scored; what the last one has more is left out.
    recipe = candidate.recipe.model_copy(update={"epochs": 3, "eval_every": 1})
    clock = _Clock(device)
    with (
        tempfile.TemporaryDirectory(prefix="scratch-nas-") as folder,
        limited_memory(device, candidate.cap_bytes),
        tf32(recipe.tf32, device),
        loading(),
    ):
        begun_s = clock.now_s()
        epochs, _ = begin(
            replace(candidate, recipe=recipe, folder=Path(folder)), splits, clock.on_step
        )
        begin_s = clock.now_s() - begun_s
        for _ in range(2):
            clock.steps_s = [clock.now_s()]
            report = epochs.next()
            scored_s = clock.now_s()
            epochs.run.end_epoch(report)
            kept_s = clock.now_s()
    first_s, last_s = clock.steps_s[0], clock.steps_s[-1]
    free_memory()
    return Timing(
        str(candidate.layout),
        flops,
        memory_bytes,
        begin_s,
        step_s=(last_s - first_s)
        / (len(clock.steps_s) - 1),  # the mean, which is what adds up to an epoch
        score_s=(scored_s - last_s) / len(splits.val.images),
        keep_s=kept_s - scored_s,
    )


def time_layouts(
    jobs: Sequence[Job],
    splits: Splits,
    *,
    at_once: int,
    threads: int,
    on_timing: Callable[[int, int], None],
) -> tuple[list[Timing], float]:
    """Measure layouts as `time_layout` does, each in several processes at the same time: candidates
    that share a machine slow each other down.

    Layouts whose training diverges at once are left out.

    Args:
        jobs: what to measure.
        splits: images to train on and to score, a few.
        at_once: processes; 1 measures in this process.
        threads: of each process.
        on_timing: told of each measurement: how many are done, and of how many.

    Returns:
        Timings, `at_once` of each layout, and the seconds that a process took to start.

    Raises:
        NonFiniteLoss: all diverged.
    """
    timings, start_s = _all_timings(jobs, splits, at_once, threads, on_timing)
    if found := [timing for timing in timings if timing]:
        return found, start_s
    raise NonFiniteLoss(f"the training of all {len(jobs)} layouts diverged at once")


def _all_timings(
    jobs: Sequence[Job],
    splits: Splits,
    at_once: int,
    threads: int,
    on_timing: Callable[[int, int], None],
) -> tuple[list[Timing | None], float]:
    timings, total = list[Timing | None](), len(jobs) * at_once
    if at_once == 1:
        with num_threads(threads):
            for candidate, flops, memory_bytes in jobs:
                timings.append(_timing(candidate, splits, flops, memory_bytes))
                on_timing(len(timings), total)
        return timings, 0.0
    began_s, pool = (
        time.perf_counter(),
        ProcessPoolExecutor(at_once, get_context("spawn"), _begin_process, (threads,)),
    )
    try:
        with outside_working_folder():
            begun = [pool.submit(os.getpid) for _ in range(at_once)]
        for started in begun:
            started.result()
        start_s = time.perf_counter() - began_s
        running = [
            pool.submit(_timing, candidate, splits, *sizes)
            for candidate, *sizes in jobs
            for _ in range(at_once)
        ]
        for each in running:
            timings.append(each.result())
            on_timing(len(timings), total)
    finally:
        pool.shutdown(cancel_futures=True)
    return timings, start_s


def _timing(candidate: Candidate, splits: Splits, flops: int, memory_bytes: int) -> Timing | None:
    try:
        return time_layout(candidate, splits, flops, memory_bytes)
    except NonFiniteLoss:
        return None


def _begin_process(threads: int) -> None:
    """Runs first in a process, which has to import this module for it, and so everything that a
    candidate needs.
    """
    torch.set_num_threads(threads)


def read_s(split: CocoSplit, short_side: int, long_side: int) -> float:
    """Seconds to decode those images of a split that this machine does not keep decoded yet, from
    `READ` images that are decoded to see.

    Args:
        split: the images.
        short_side, long_side: size that they are kept at, pixels.
    """
    images = PixelCache(split, short_side, long_side, limit_bytes=0)
    some = range(min(READ, len(split.images)))
    began_s = time.perf_counter()
    for index in some:
        images.decode(index)
    return (len(split.images) - images.cached_images) * (time.perf_counter() - began_s) / len(some)


def _few(split: CocoSplit, images: int) -> CocoSplit:
    return split.subset(min(1.0, images / len(split.images)))


class _Clock:
    """When steps ended; to look at a GPU's work waits for it."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.steps_s = device, []  # type: torch.device, list[float]

    def now_s(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def on_step(self, step: int, steps: int, loss: Tensor | float) -> None:
        self.steps_s.append(self.now_s())
