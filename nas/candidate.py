"""One candidate from its layout to its scores: build, calibrate, train, evaluate, checkpoint; the order of it all.

The file to read first. `train_candidate` is a generator: it gives a report after each epoch and goes on when asked for the
next, so that whoever runs it (a Ray worker, the local backend, `nas train`) decides whether there is one.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from nas.calibration import calibrate
from nas.data.annotations import CocoSplit
from nas.data.dataset import AspectBatches, EvalBatches, eval_view, make_loader, train_view
from nas.detectors import Detector, build_detector
from nas.errors import DataError
from nas.evaluation import evaluate
from nas.gpu import limited_memory
from nas.places import append_line, writing
from nas.records import EpochReport
from nas.spec import CalibrationSpec, DetectorSpec, Recipe
from nas.training.checkpoint import load_checkpoint, save_checkpoint, save_weights
from nas.training.checkpointing import checkpoint_blocks
from nas.training.loop import OnStep, train_epoch
from nas.training.optimizer import lr_at, make_optimizer
from search_spaces.layout import Layout

CHECKPOINT, WEIGHTS, LOG = "checkpoint.pt", "detector.safetensors", "log.jsonl"


@dataclass(frozen=True)
class Candidate:
    """What is trained, how, and where its files go; `cap_bytes` limits what it may reserve of a GPU.

    A checkpoint is written after each epoch and, within one, `checkpoint_s` seconds after the one before. `cache_bytes` is
    what decoded images may take of this machine's disk.
    """

    layout: Layout
    detector: DetectorSpec
    recipe: Recipe
    calibration: CalibrationSpec
    num_classes: int
    seed: int
    folder: Path
    device: str = "cpu"
    cap_bytes: int | None = None
    checkpoint_s: float = 600
    cache_bytes: int = 0

    @property
    def key(self) -> str:
        """Names the run inside its checkpoints: equal for runs that would do the same."""
        sections = [section.model_dump(mode="json") for section in (self.detector, self.recipe, self.calibration)]
        what = json.dumps([*sections, self.num_classes, self.seed], sort_keys=True)
        return f"{self.layout} {hashlib.sha256(what.encode()).hexdigest()[:12]}"


def train_candidate(
    candidate: Candidate, train: CocoSplit, val: CocoSplit, on_step: OnStep | None = None
) -> Iterator[EpochReport]:
    """Train from scratch, or from the checkpoint in `candidate.folder`, and report after each epoch.

    A run that had a checkpoint repeats the report of its last epoch first, in case nobody heard it. The weights are in
    `detector.safetensors` when the last report comes; `log.jsonl` has a line for every epoch that was trained, repeated ones
    too.

    Raises:
        NonFiniteLoss: training diverged; the last checkpoint stays.
        OutOfMemory: it needs more of the GPU than `candidate.cap_bytes`, or than there is.
        OutputError: the disk is full or away; the last checkpoint stays.
        DataError: an image has become unreadable since it was checked; the last checkpoint stays.
        CandidateError: others had taken the GPU's memory.
    """
    with limited_memory(torch.device(candidate.device), candidate.cap_bytes):
        try:
            yield from _train(candidate, train, val, on_step)
        except DataError as error:  # from a loader's process it comes with a traceback in its text
            raise DataError(str(error).strip().splitlines()[-1].rpartition("DataError: ")[2]) from None


@dataclass
class _Progress:
    """What a checkpoint holds beside the tensors; `steps` of the running epoch are done, with the sum of their losses."""

    calibration: dict[str, Any] | None = None
    report: dict[str, Any] | None = None
    steps: int = 0
    loss_sum: float = 0.0
    train_s: float = 0.0
    elapsed_s: float = 0.0


class _Run:
    """A training run that can be saved between any two steps."""

    def __init__(self, candidate: Candidate, detector: Detector, optimizer: torch.optim.Optimizer) -> None:
        self.candidate, self.detector, self.optimizer = candidate, detector, optimizer
        self.path, self.epoch, self.progress = candidate.folder / CHECKPOINT, 0, _Progress()
        self._mark_s = self._saved_s = time.perf_counter()
        with writing(candidate.folder):
            candidate.folder.mkdir(parents=True, exist_ok=True)

    def resume(self) -> bool:
        """Whether there was a checkpoint."""
        resumed = load_checkpoint(self.path, self.detector, self.optimizer, key=self.candidate.key)
        if resumed:
            self.epoch, self.progress = resumed[0], _Progress(**resumed[1])
        return bool(resumed)

    def save(self) -> None:
        key, extra = self.candidate.key, asdict(self.progress)
        save_checkpoint(self.path, self.detector, self.optimizer, epoch=self.epoch, key=key, extra=extra)
        self._saved_s = time.perf_counter()

    def tick(self, *, training: bool) -> None:
        """Account for the time since the last call."""
        passed_s, self._mark_s = time.perf_counter() - self._mark_s, time.perf_counter()
        self.progress.elapsed_s += passed_s
        self.progress.train_s += passed_s if training else 0

    def after_step(self, step: int, steps: int, loss: float) -> None:
        self.progress.steps, self.progress.loss_sum = step, self.progress.loss_sum + loss
        if step < steps and time.perf_counter() - self._saved_s >= self.candidate.checkpoint_s:
            self.tick(training=True)
            self.save()

    def log(self, **values: float) -> None:
        append_line(self.candidate.folder / LOG, json.dumps(values))

    def ended(self, report: EpochReport) -> EpochReport:
        """An epoch is over: keep it, and the weights of the last one."""
        self.progress.report, self.progress.steps, self.progress.loss_sum = asdict(report), 0, 0.0
        self.epoch = report.epoch
        self.save()
        self.keep_weights(report)
        return report

    def keep_weights(self, report: EpochReport) -> None:
        if report.last:
            save_weights(self.candidate.folder / WEIGHTS, self.detector)


def _train(candidate: Candidate, train: CocoSplit, val: CocoSplit, on_step: OnStep | None) -> Iterator[EpochReport]:
    device, recipe = torch.device(candidate.device), candidate.recipe
    torch.manual_seed(candidate.seed)
    detector = build_detector(candidate.layout, candidate.detector, candidate.num_classes).to(device)
    if recipe.checkpointing:
        checkpoint_blocks(detector.backbone.backbone)
    run = _Run(candidate, detector, make_optimizer(detector, recipe))
    order, train_loader, val_loader = _loaders(candidate, train, val, device)
    accumulate = recipe.batch // recipe.images_per_step
    steps = math.ceil(len(order) / accumulate)

    def after_step(step: int, of: int, loss: float) -> None:
        run.after_step(step, of, loss)
        if on_step:
            on_step(step, of, loss)

    if not run.resume():
        run.progress.calibration = _calibrate(candidate, detector, train, device)
    elif run.progress.report:
        report = EpochReport.from_dict(run.progress.report)
        run.keep_weights(report)  # perhaps in another folder than before
        yield report
    for epoch in range(run.epoch, recipe.epochs):
        run.tick(training=False)
        order.epoch, order.skipped = epoch, run.progress.steps * accumulate
        rates = [lr_at(epoch * steps + step, steps, recipe) for step in range(steps)]
        loss = train_epoch(
            detector, train_loader, run.optimizer, lrs=rates, accumulate=accumulate, clip_norm=recipe.clip_norm,
            precision=recipe.precision, device=device, on_step=after_step, done=(run.progress.steps, run.progress.loss_sum),
        )  # fmt: skip
        run.tick(training=True)
        run.log(epoch=epoch + 1, loss=loss, lr=rates[-1], train_s=round(run.progress.train_s, 3))
        metrics, _, fps = evaluate(detector, val_loader, val, device)
        run.tick(training=False)
        report = EpochReport(
            epoch=epoch + 1, epochs=recipe.epochs, loss=loss, lr=rates[-1], metrics=metrics, fps=fps,
            train_s=run.progress.train_s, elapsed_s=run.progress.elapsed_s,
            memory_peak_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
            device=device_name(device), calibration=run.progress.calibration,
        )  # fmt: skip
        yield run.ended(report)


def _calibrate(candidate: Candidate, detector: Detector, train: CocoSplit, device: torch.device) -> dict[str, Any] | None:
    """Calibrate on one batch of training images, in pieces that take no more memory than a training step."""
    if not candidate.calibration.enabled:
        return None
    recipe = candidate.recipe
    size = recipe.images_per_step
    if recipe.precision == "bf16" and size % 2 == 0:
        size //= 2  # calibration runs in fp32
    order = AspectBatches(train.images, size, candidate.seed)
    loader = make_loader(train, train_view(recipe), order, workers=0, cache_bytes=candidate.cache_bytes)
    batches = [batch.to(device) for batch in itertools.islice(loader, recipe.batch // size)]
    return calibrate(detector, batches, candidate.calibration).to_dict()


def _loaders(
    candidate: Candidate, train: CocoSplit, val: CocoSplit, device: torch.device
) -> tuple[AspectBatches, DataLoader, DataLoader]:
    recipe, size = candidate.recipe, candidate.recipe.images_per_step
    order = AspectBatches(train.images, size, candidate.seed)
    how = {"workers": loader_workers(recipe, device), "cache_bytes": candidate.cache_bytes}
    return (
        order,
        make_loader(train, train_view(recipe), order, **how),
        make_loader(val, eval_view(recipe), EvalBatches(val.images, size), **how),
    )


def loader_workers(recipe: Recipe, device: torch.device) -> int:
    """Processes that decode images: none beside training on the CPU, which needs the cores itself."""
    if recipe.loader_workers != "auto":
        return recipe.loader_workers
    return min(4, os.cpu_count() or 1) if device.type == "cuda" else 0


def device_name(device: torch.device) -> str:
    """As people know it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
