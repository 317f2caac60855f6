"""One candidate from its layout to its scores: build, calibrate, train, evaluate, checkpoint; the
order of it all.

The file to read first. `train_candidate` is a generator: it gives a report after each epoch and
goes on when asked for the next, so that whoever runs it (a Ray worker, the local backend, `nas
train`) decides whether there is one.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from nas.artifacts.paths import DETECTIONS
from nas.config.identity import identity
from nas.config.recipe import Recipe
from nas.config.sections import CalibrationSpec, DetectorSpec
from nas.data.coco import CocoSplit
from nas.data.dataloader import loader_workers, loading, make_loader
from nas.data.dataset import DetectionItem
from nas.data.samplers import AspectRatioBatchSampler, DistributedBatchSampler, EvalBatchSampler
from nas.data.splits import Splits
from nas.data.transforms import ResizeFlip, eval_resize_flip, train_resize_flip
from nas.evaluation.coco import evaluate
from nas.evaluation.visualization import sample, write_drawings
from nas.models.activation_checkpointing import checkpoint_blocks
from nas.models.compile import compile_blocks
from nas.models.detectors import Detector, build_detector
from nas.models.memory_format import channels_last_
from nas.models.weights import load_backbone_weights
from nas.reports import EpochReport
from nas.training.calibration import calibrate
from nas.training.gpu_memory import limited_memory
from nas.training.loop import OnStep
from nas.training.optimizer import make_optimizer
from nas.training.trainer import CandidateTrainer
from nas.utils.device import device_name, hardware
from nas.utils.distributed import World, broadcast_buffers, synchronised, wrap_ddp
from nas.utils.files import os_errors_as_output_error
from nas.utils.paths import to_path
from search_spaces.layout import Layout

DRAWN = 4  # validation images that a search draws of each complete candidate


@dataclass(frozen=True)
class Candidate:
    """What is trained, how, and where its files go; `cap_bytes` limits what it may reserve of a
    GPU.

    A checkpoint is written after each epoch and, within one, `checkpoint_s` seconds after the one
    before. `cache_bytes` is what decoded images may take of this machine's disk.
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
        """Names the run inside its checkpoints: equal for runs that would do the same, in every
        release (see `nas.config.identity`).
        """
        sections = [identity(section) for section in (self.detector, self.recipe, self.calibration)]
        what = json.dumps([*sections, self.num_classes, self.seed], sort_keys=True)
        return f"{self.layout} {hashlib.sha256(what.encode()).hexdigest()[:12]}"


def train_candidate(
    candidate: Candidate,
    train: CocoSplit,
    val: CocoSplit,
    test: CocoSplit | None = None,
    *,
    on_step: OnStep | None = None,
) -> Iterator[EpochReport]:
    """Train from scratch, from the recipe's weights, or from the checkpoint in `candidate.folder`;
    report after each epoch.

    A run that had a checkpoint repeats the report of its last epoch first, in case nobody heard it.
    The weights are in `detector.safetensors` when the last report comes; `log.jsonl` has a line for
    every epoch that was trained, repeated ones too; `reports.jsonl` and `curves.csv` have every
    epoch once; `detections` has a few drawn images of the last one.

    Raises:
        NonFiniteLoss: training diverged; the last checkpoint stays.
        OutOfMemory: it needs more of the GPU than `candidate.cap_bytes`, or than there is.
        OutputError: the disk is full or away; the last checkpoint stays.
        DataError: an image has become unreadable since it was checked; the last checkpoint stays.
        CandidateError: others had taken the GPU's memory.
        SpecError: the recipe's weights cannot be used, or it cannot be compiled.
    """
    with limited_memory(torch.device(candidate.device), candidate.cap_bytes), loading():
        yield from _train(candidate, Splits(train, val, test), on_step)


def _train(candidate: Candidate, splits: Splits, on_step: OnStep | None) -> Iterator[EpochReport]:
    epochs, report = begin(candidate, splits, on_step)
    if report:
        yield report
    while not (report and report.last):
        report = epochs.run.end_epoch(epochs.next())
        yield report


def begin(
    candidate: Candidate, splits: Splits, on_step: OnStep | None = None
) -> tuple[Epochs, EpochReport | None]:
    """Everything before the next epoch: build and calibrate, or go on from the checkpoint, whose
    last report comes too.
    """
    device, world = torch.device(candidate.device), World.current()
    torch.manual_seed(candidate.seed)
    detector: Any = build_detector(candidate.layout, candidate.detector, candidate.num_classes)
    detector = synchronised(detector, candidate.layout.norm, device, world).to(device)
    checkpoint_blocks(detector, candidate.recipe.checkpointing)
    if candidate.recipe.channels_last:
        channels_last_(detector)
    optimizer = make_optimizer(detector, candidate.recipe)
    run = CandidateTrainer(
        candidate.folder, candidate.key, detector, optimizer, world, candidate.checkpoint_s
    )
    report = run.resume()
    if not report and not run.begun:
        run.progress.calibration = _prepare(candidate, detector, run, splits.train, device)
        if world.rank:  # the first process draws what one alone would draw
            torch.manual_seed(candidate.seed + 1_000_003 * world.rank)
    return Epochs(candidate, splits, run, device, on_step), report


class Epochs:
    """Trains and scores one epoch after the other."""

    def __init__(
        self,
        candidate: Candidate,
        splits: Splits,
        run: CandidateTrainer,
        device: torch.device,
        on_step: OnStep | None,
    ) -> None:
        self.recipe, self.splits, self.run, self.device = candidate.recipe, splits, run, device
        self.candidate, self.on_step = candidate, on_step
        if self.recipe.compile:  # after calibration, which looks into the blocks
            compile_blocks(run.network)
        self.network = wrap_ddp(run.network, run.world)
        self.order = AspectRatioBatchSampler(
            splits.train.images, self.recipe.images_at_once(run.world.size), candidate.seed
        )
        self.train_loader = self._loader(
            splits.train,
            train_resize_flip(self.recipe),
            DistributedBatchSampler(self.order, run.world),
        )
        self.val_loader = self._scoring_loader(splits.val)

    def next(self) -> EpochReport:
        """The epoch after those that the run has done."""
        run = self.run
        loss, lr = run.train(
            self.network, self.train_loader, self.order, self.recipe, on_step=self.on_step
        )
        broadcast_buffers(run.network, run.world)
        metrics, detections, fps = evaluate(
            run.network, self.val_loader, self.splits.val, self.device
        )
        saturation = run.saturation.after(metrics.map or 0.0, self.recipe)
        run.progress.saturation = asdict(saturation)
        report = EpochReport(
            epoch=run.epoch + 1,
            epochs=self.recipe.epochs,
            loss=loss,
            lr=lr,
            metrics=metrics,
            fps=fps,
            train_s=run.progress.train_s,
            elapsed_s=0.0,
            memory_peak_bytes=torch.cuda.max_memory_allocated(self.device)
            if self.device.type == "cuda"
            else None,
            device=device_name(self.device),
            calibration=run.progress.calibration,
            converged=saturation.converged,
            hardware=hardware(self.device),
        )
        if report.last and run.world.first:
            self._draw(detections)
        if report.last and self.splits.test:
            test, _, _ = evaluate(
                run.network, self._scoring_loader(self.splits.test), self.splits.test, self.device
            )
            report = replace(report, test=test)
        run.tick(training=False)
        return replace(report, elapsed_s=run.progress.elapsed_s)

    def _draw(self, detections: list[dict[str, Any]]) -> None:
        """A few validation images with what was found on them."""
        shown, folder = sample(self.splits.val, DRAWN), self.run.folder / DETECTIONS
        ids = {image.id for image in shown.images}
        with os_errors_as_output_error(folder):
            folder.mkdir(exist_ok=True)
        write_drawings(folder, shown, [found for found in detections if found["image_id"] in ids])

    def _scoring_loader(self, split: CocoSplit) -> DataLoader[DetectionItem]:
        order = EvalBatchSampler(split.images, self.recipe.images_at_once(self.run.world.size))
        return self._loader(
            split, eval_resize_flip(self.recipe), DistributedBatchSampler(order, self.run.world)
        )

    def _loader(
        self, split: CocoSplit, view: ResizeFlip, order: DistributedBatchSampler
    ) -> DataLoader[DetectionItem]:
        return make_loader(
            split, view, order, loader_workers(self.recipe, self.device), self.candidate.cache_bytes
        )


def _prepare(
    candidate: Candidate,
    detector: Detector,
    run: CandidateTrainer,
    train: CocoSplit,
    device: torch.device,
) -> dict[str, Any] | None:
    """What a run starts from: a file's weights as they are, or its own, calibrated."""
    if not candidate.recipe.weights:
        return _calibrate(candidate, detector, train, device)
    report = load_backbone_weights(detector.backbone.backbone, to_path(candidate.recipe.weights))
    run.log(weights=report.summary())
    return None


def _calibrate(
    candidate: Candidate, detector: Detector, train: CocoSplit, device: torch.device
) -> dict[str, Any] | None:
    """Calibrate on one batch of training images, in pieces that take no more memory than a training
    step.
    """
    if not candidate.calibration.enabled:
        return None
    recipe, world = candidate.recipe, World.current()
    size = recipe.images_at_once(world.size)
    if recipe.precision == "bf16" and size % (2 * world.size) == 0:
        size //= 2  # calibration runs in fp32
    order = DistributedBatchSampler(
        AspectRatioBatchSampler(train.images, size, candidate.seed), world
    )
    loader = make_loader(
        train, train_resize_flip(recipe), order, workers=0, cache_bytes=candidate.cache_bytes
    )
    batches = [batch.to(device) for batch in itertools.islice(loader, recipe.batch // size)]
    return calibrate(detector, batches, candidate.calibration).to_dict()
