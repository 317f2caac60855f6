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
from nas.data.dataset import AspectBatches, EvalBatches, eval_transforms, make_loader, train_transforms
from nas.detectors import Detector, build_detector
from nas.errors import DataError
from nas.evaluation import evaluate
from nas.gpu import limited_memory
from nas.records import EpochReport
from nas.spec import CalibrationSpec, DetectorSpec, Recipe
from nas.training.checkpoint import load_checkpoint, save_checkpoint, save_weights, writing
from nas.training.checkpointing import checkpoint_blocks
from nas.training.loop import OnStep, train_epoch
from nas.training.optimizer import lr_at, make_optimizer
from search_spaces.layout import Layout

CHECKPOINT, WEIGHTS, LOG = "checkpoint.pt", "detector.safetensors", "log.jsonl"


@dataclass(frozen=True)
class Candidate:
    """What is trained, how, and where its files go; `cap_bytes` limits what it may reserve of a GPU."""

    layout: Layout
    detector: DetectorSpec
    recipe: Recipe
    calibration: CalibrationSpec
    num_classes: int
    seed: int
    folder: Path
    device: str = "cpu"
    cap_bytes: int | None = None

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


def _train(candidate: Candidate, train: CocoSplit, val: CocoSplit, on_step: OnStep | None) -> Iterator[EpochReport]:
    device, recipe = torch.device(candidate.device), candidate.recipe
    begun = time.perf_counter()
    torch.manual_seed(candidate.seed)
    detector = build_detector(candidate.layout, candidate.detector, candidate.num_classes).to(device)
    if recipe.checkpointing:
        checkpoint_blocks(detector.backbone.backbone)
    optimizer = make_optimizer(detector, recipe)
    order, train_loader, val_loader = _loaders(recipe, candidate.seed, train, val, device)
    accumulate = recipe.batch // recipe.images_per_step
    steps = math.ceil(len(order) / accumulate)
    with writing(candidate.folder):
        candidate.folder.mkdir(parents=True, exist_ok=True)
    path = candidate.folder / CHECKPOINT
    if resumed := load_checkpoint(path, detector, optimizer, key=candidate.key):
        done, said = resumed
        report = EpochReport.from_dict(said)
        if report.last:  # perhaps in another folder than the weights
            save_weights(candidate.folder / WEIGHTS, detector)
        yield report
        calibration, train_s, elapsed_s = report.calibration, report.train_s, report.elapsed_s
    else:
        done, train_s, elapsed_s = 0, 0.0, 0.0
        calibration = _calibrate(candidate, detector, train, device)
    for epoch in range(done, recipe.epochs):
        order.epoch, started = epoch, time.perf_counter()
        rates = [lr_at(epoch * steps + step, steps, recipe) for step in range(steps)]
        loss = train_epoch(
            detector, train_loader, optimizer, lrs=rates, accumulate=accumulate, clip_norm=recipe.clip_norm,
            precision=recipe.precision, device=device, on_step=on_step,
        )  # fmt: skip
        train_s += time.perf_counter() - started
        with writing(candidate.folder / LOG), (candidate.folder / LOG).open("a") as log:
            log.write(json.dumps({"epoch": epoch + 1, "loss": loss, "lr": rates[-1], "train_s": round(train_s, 3)}) + "\n")
        metrics, _, fps = evaluate(detector, val_loader, val, device)
        report = EpochReport(
            epoch=epoch + 1, epochs=recipe.epochs, loss=loss, lr=rates[-1], metrics=metrics, fps=fps, train_s=train_s,
            elapsed_s=elapsed_s + time.perf_counter() - begun,
            memory_peak_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
            device=device_name(device), calibration=calibration,
        )  # fmt: skip
        save_checkpoint(path, detector, optimizer, epoch=epoch + 1, key=candidate.key, extra=asdict(report))
        if report.last:
            save_weights(candidate.folder / WEIGHTS, detector)
        yield report


def _calibrate(candidate: Candidate, detector: Detector, train: CocoSplit, device: torch.device) -> dict[str, Any] | None:
    """Calibrate on one batch of training images, in pieces that take no more memory than a training step."""
    if not candidate.calibration.enabled:
        return None
    recipe = candidate.recipe
    size = recipe.images_per_step
    if recipe.precision == "bf16" and size % 2 == 0:
        size //= 2  # calibration runs in fp32
    order = AspectBatches(train.images, size, candidate.seed)
    loader = make_loader(train, train_transforms(recipe), order, workers=0)
    batches = [batch.to(device) for batch in itertools.islice(loader, recipe.batch // size)]
    return calibrate(detector, batches, candidate.calibration).to_dict()


def _loaders(
    recipe: Recipe, seed: int, train: CocoSplit, val: CocoSplit, device: torch.device
) -> tuple[AspectBatches, DataLoader, DataLoader]:
    workers = loader_workers(recipe, device)
    order = AspectBatches(train.images, recipe.images_per_step, seed)
    in_order = EvalBatches(val.images, recipe.images_per_step)
    return (
        order,
        make_loader(train, train_transforms(recipe), order, workers),
        make_loader(val, eval_transforms(recipe), in_order, workers),
    )


def loader_workers(recipe: Recipe, device: torch.device) -> int:
    """Processes that decode images: none beside training on the CPU, which needs the cores itself."""
    if recipe.loader_workers != "auto":
        return recipe.loader_workers
    return min(4, os.cpu_count() or 1) if device.type == "cuda" else 0


def device_name(device: torch.device) -> str:
    """As people know it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
