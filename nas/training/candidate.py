"""One candidate from its layout to its scores: build, calibrate, train, evaluate, checkpoint; the
order of it all.

The file to read first. `train_candidate` is a generator: it gives a report after each epoch and
goes on when asked for the next, so that whoever runs it (a Ray worker, the local backend, `nas
train`) decides whether there is one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from nas.artifacts.paths import DETECTIONS, WEIGHTS
from nas.config.identity import identity
from nas.config.recipe import Recipe
from nas.config.sections import CalibrationSpec, DetectorSpec
from nas.config.spec import SearchSpec
from nas.data.coco import CocoSplit
from nas.data.dataloader import loader_workers, loading, make_loader
from nas.data.dataset import DetectionItem
from nas.data.samplers import DistributedBatchSampler, EvalBatchSampler, training_order
from nas.data.splits import Splits
from nas.data.transforms import TransformSampler, eval_transforms, train_transforms
from nas.evaluation.coco import evaluate
from nas.evaluation.visualization import sample, write_drawings
from nas.models.detectors import Detector, build_detector
from nas.reports import CocoMetrics, DatasetSummary, EpochReport
from nas.training.calibration import CalibrationData, calibrate
from nas.training.epochs import Epochs, remaining_reports
from nas.training.gpu_memory import limited_memory, peak_allocated_bytes
from nas.training.loop import OnStep
from nas.training.network import load_weights, prepare_network
from nas.training.optimizer import make_optimizer
from nas.training.pace import Pace, TimeSlot
from nas.training.trainer import CandidateTrainer
from nas.training.validation_loss import ValidationLoss
from nas.utils.device import device_name, hardware, tf32
from nas.utils.distributed import World
from nas.utils.files import os_errors_as_output_error
from search_spaces.layout import Layout

DRAWN = 4  # validation images that a search draws of each complete candidate


@dataclass(frozen=True)
class Candidate:
    """A training: what is trained, how, and where its files go.

    Args:
        layout: of the backbone.
        detector: around it.
        recipe: how it is trained.
        calibration: how it is initialised.
        num_classes: categories, without the background.
        seed: of the initial weights and the order of images.
        folder: of its checkpoint, reports and weights.
        device: `cpu`, `cuda` or `cuda:N`.
        cap_bytes: the most that it may reserve of a GPU; None is no limit.
        checkpoint_s: seconds after a checkpoint, within an epoch, until the next one; there is one
            after each epoch too.
        cache_bytes: what decoded images may take of this machine's disk.
        stop_at: seconds since 1970 after which the training stops where it is; None: never.
        slot: when the training ends, in one process, whatever the epochs of its recipe; None: with
            the recipe.
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
    stop_at: float | None = None
    slot: TimeSlot | None = None

    @classmethod
    def from_spec(
        cls, layout: Layout, spec: SearchSpec, facts: DatasetSummary, folder: Path, **changes: Any
    ) -> Self:
        """Take everything but the layout and the folder from a request and its data set.

        Args:
            layout: of the backbone.
            spec: the request: detector, recipe, calibration, seed, image cache.
            facts: the checked data set, for the number of categories.
            folder: of its checkpoint, reports and weights.
            **changes: other fields, and those that differ from the request's.
        """
        fields = {
            "detector": spec.detector,
            "recipe": spec.recipe,
            "calibration": spec.calibration,
            "num_classes": facts.num_classes,
            "seed": spec.search.seed,
            "cache_bytes": spec.run.image_cache,
        }
        return cls(layout=layout, folder=folder, **{**fields, **changes})

    @property
    def key(self) -> str:
        """Name of the run inside its checkpoints: equal for runs that would do the same, in every
        release (`nas.config.identity`).
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
    report after each epoch that is scored.

    A run that had a checkpoint repeats the report of its last epoch first, in case nobody heard it.
    The weights are in `detector.safetensors` when the last report comes, with `keep: best_and_last`
    those of the last epoch in `last.safetensors`; `log.jsonl` has a line for every epoch that was
    trained, repeated ones too; `reports.jsonl` and `curves.csv` have every scored epoch once;
    `detections` has a few drawn images of the last one.

    Raises:
        NonFiniteLoss: training diverged; the last checkpoint stays.
        OutOfMemory: it needs more of the GPU than `candidate.cap_bytes`, or than there is.
        OutputError: the disk is full or away; the last checkpoint stays.
        DataError: an image has become unreadable since it was checked; the last checkpoint stays.
        OutOfTime: `candidate.stop_at` has come; there is a checkpoint of this moment.
        CandidateError: others had taken the GPU's memory.
        SpecError: the recipe's weights cannot be used, or it cannot be compiled.
    """
    device = torch.device(candidate.device)
    limited = limited_memory(device, candidate.cap_bytes)
    with limited, tf32(candidate.recipe.tf32, device), loading():
        yield from remaining_reports(*begin(candidate, Splits(train, val, test), on_step))


def begin(
    candidate: Candidate, splits: Splits, on_step: OnStep | None = None
) -> tuple[CandidateEpochs, EpochReport | None]:
    """Do everything that comes before the next epoch: build and calibrate, or go on from the
    checkpoint.

    Returns:
        The epochs that are left, and the last report before the checkpoint, if there is one.
    """
    device, world = torch.device(candidate.device), World.current()
    torch.manual_seed(candidate.seed)
    detector = prepare_network(
        build_detector(
            candidate.layout, candidate.detector, candidate.num_classes, candidate.recipe.init
        ),
        candidate.recipe,
        candidate.layout.norm,
        device,
        world,
    )
    optimizer = make_optimizer(detector, candidate.recipe)
    run = CandidateTrainer(
        candidate.folder,
        candidate.key,
        detector,
        optimizer,
        world,
        candidate.checkpoint_s,
        candidate.recipe.ema,
    )
    run.keeps_last = candidate.recipe.keep == "best_and_last"
    run.stop_at = candidate.stop_at
    report = run.resume()
    if not report and not run.begun:
        run.progress.calibration = _prepare(candidate, detector, run, splits.train, device)
        if world.rank:  # the first process draws what one alone would draw
            torch.manual_seed(candidate.seed + 1_000_003 * world.rank)
    return CandidateEpochs(candidate, splits, run, device, on_step), report


class CandidateEpochs(Epochs[EpochReport]):
    """Epochs of a detector, scored by COCO's metrics."""

    def __init__(
        self,
        candidate: Candidate,
        splits: Splits,
        run: CandidateTrainer,
        device: torch.device,
        on_step: OnStep | None,
    ) -> None:
        pace = Pace(candidate.slot) if candidate.slot else None
        super().__init__(run, candidate.recipe, device, on_step, pace)
        self.splits, self.cache_bytes = splits, candidate.cache_bytes
        self.detector = run.network
        self.order = training_order(
            splits.train, self.recipe, self.recipe.images_at_once(run.world.size), candidate.seed
        )
        self.batches = self._loader(
            splits.train,
            train_transforms(self.recipe),
            DistributedBatchSampler(self.order, run.world),
        )
        self.val_loader = self._scoring_loader(splits.val)

    def score(self, loss: float, lr: float) -> EpochReport:
        """Score the validation split; after the last epoch the test split too, and draw."""
        run, val = self.run, self.splits.val
        losses = ValidationLoss(self.detector)
        with run.scored_weights():
            metrics, detections, fps = evaluate(
                run.network, self.val_loader, val, self.device, losses
            )
        report = EpochReport(
            epoch=run.epoch + 1,
            epochs=self.epochs,
            loss=loss,
            val_loss=losses.mean(),
            lr=lr,
            metrics=metrics,
            fps=fps,
            train_s=run.progress.train_s,
            elapsed_s=0.0,
            memory_peak_bytes=peak_allocated_bytes(self.device),
            device=device_name(self.device),
            calibration=run.progress.calibration,
            converged=self.has_converged(metrics.map or 0.0),
            hardware=hardware(self.device),
            **self._best(metrics),
        )
        if report.last:
            report = self._end(report, detections)
        run.tick(training=False)
        return replace(report, elapsed_s=run.progress.elapsed_s)

    def _best(self, metrics: CocoMetrics) -> dict[str, Any]:
        """The best epoch so far, for a report: this one, with `metrics`, or that of the report
        before.
        """
        if self.recipe.keep == "last":
            return {}
        before = self.run.progress.report and EpochReport.from_dict(self.run.progress.report)
        if before and before.best and (before.best.map or 0.0) > (metrics.map or 0.0):
            return {"best": before.best, "best_epoch": before.best_epoch}
        return {"best": metrics, "best_epoch": self.run.epoch + 1}

    def _end(self, report: EpochReport, detections: list[dict[str, Any]]) -> EpochReport:
        """The report of the last epoch, with what is done once, by the weights that are kept."""
        run, test = self.run, self.splits.test
        shown = sample(self.splits.val, DRAWN)
        with self._kept_weights(report):
            if not report.keeps:
                loader = self._scoring_loader(shown)
                _, detections, _ = evaluate(run.network, loader, shown, self.device)
            if run.world.first:
                self._draw(shown, detections)
            if not test:
                return report
            metrics, _, _ = evaluate(run.network, self._scoring_loader(test), test, self.device)
        return replace(report, test=metrics)

    @contextmanager
    def _kept_weights(self, report: EpochReport) -> Iterator[None]:
        """Let the network have the weights that are kept inside the block."""
        run = self.run
        if report.keeps:
            with run.scored_weights():
                yield
            return
        own = {name: tensor.clone() for name, tensor in run.network.state_dict().items()}
        run.network.load_state_dict(load_file(run.folder / WEIGHTS, device=str(self.device)))
        try:
            yield
        finally:
            run.network.load_state_dict(own)

    def _draw(self, shown: CocoSplit, detections: list[dict[str, Any]]) -> None:
        """A few validation images with what was found on them."""
        folder = self.run.folder / DETECTIONS
        ids = {image.id for image in shown.images}
        with os_errors_as_output_error(folder):
            folder.mkdir(exist_ok=True)
        write_drawings(folder, shown, [found for found in detections if found["image_id"] in ids])

    def _scoring_loader(self, split: CocoSplit) -> DataLoader[DetectionItem]:
        order = EvalBatchSampler(split.images, self.recipe.images_at_once(self.run.world.size))
        return self._loader(
            split, eval_transforms(self.recipe), DistributedBatchSampler(order, self.run.world)
        )

    def _loader(
        self, split: CocoSplit, view: TransformSampler, order: DistributedBatchSampler
    ) -> DataLoader[DetectionItem]:
        return make_loader(
            split, view, order, loader_workers(self.recipe, self.device), self.cache_bytes
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
        data = CalibrationData(
            train, candidate.recipe, candidate.seed, candidate.cache_bytes, device
        )
        return calibrate(detector, candidate.calibration, data)
    report = load_weights(detector.backbone.backbone, candidate.recipe)
    if report.statistics:
        detector.transform.set_statistics(report.statistics)
    run.log(weights=report.summary())
    return None
