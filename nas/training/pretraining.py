"""A layout pre-trained by image classification, for baselines that are fine-tuned: build, train,
score, checkpoint.

The counterpart of `nas.training.candidate`, with the same loop, checkpoints and reports.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from nas.config.identity import identity
from nas.config.pretraining import PretrainingRecipe
from nas.data.classification_loader import ImageBatch, eval_loader, train_loader, train_order
from nas.data.dataloader import loader_workers, loading
from nas.data.image_folder import LabelledImages
from nas.data.samplers import DistributedBatchSampler
from nas.models.backbones import HybridBackbone, build_backbone
from nas.models.classifier import Classifier, top_k
from nas.models.detectors.transform import IMAGENET
from nas.reports import ClassificationMetrics, PretrainingReport
from nas.training.checkpoint import save_weights
from nas.training.epochs import Epochs, remaining_reports
from nas.training.gpu_memory import limited_memory, peak_allocated_bytes
from nas.training.loop import OnStep
from nas.training.network import load_weights, prepare_network
from nas.training.optimizer import make_optimizer
from nas.training.trainer import Trainer
from nas.utils.device import device_name, tf32
from nas.utils.distributed import (
    World,
    all_reduce_mean,
)
from search_spaces.layout import Layout

MOST_WORKERS = 16  # JPEG files are decoded anew in every epoch


@dataclass(frozen=True)
class Pretraining:
    """A training by classification: what is trained, how, and where its files go.

    Args:
        layout: of the backbone.
        recipe: how it is trained.
        classes: their names, in the order of their labels.
        data_fingerprint: hexadecimal digest of the images.
        seed: of the initial weights and the order of images.
        out: the file of weights that is written in the end.
        folder: of its checkpoint and reports until then.
        device: `cpu`, `cuda` or `cuda:N`.
        checkpoint_s: seconds after a checkpoint, within an epoch, until the next one.
        origin: plain JSON that is written beside the weights, for those who find the file.
    """

    layout: Layout
    recipe: PretrainingRecipe
    classes: tuple[str, ...]
    data_fingerprint: str
    seed: int
    out: Path
    folder: Path
    device: str = "cpu"
    checkpoint_s: float = 600
    origin: Mapping[str, Any] | None = None

    @property
    def key(self) -> str:
        """Name of the run inside its checkpoints: equal for runs that would do the same, in every
        release (`nas.config.identity`).
        """
        what = json.dumps([identity(self.recipe), self.classes, self.data_fingerprint, self.seed])
        return f"{self.layout} {hashlib.sha256(what.encode()).hexdigest()[:12]}"


class PretrainingTrainer(Trainer[PretrainingReport]):
    """The run of a classifier with fresh weights, of which the backbone is kept.

    The file of weights has metadata that describe it, text or JSON each.

    Args:
        pretraining: what is trained.
        world: the processes that train it together.
    """

    kind = PretrainingReport

    def __init__(self, pretraining: Pretraining, world: World) -> None:
        self.pretraining, recipe = pretraining, pretraining.recipe
        torch.manual_seed(pretraining.seed)
        network = prepare_network(
            Classifier(
                build_backbone(pretraining.layout, recipe.init),
                len(pretraining.classes),
                recipe.label_smoothing,
            ),
            recipe,
            pretraining.layout.norm,
            torch.device(pretraining.device),
            world,
        )
        optimizer = make_optimizer(network, recipe)
        super().__init__(
            pretraining.folder,
            pretraining.key,
            network,
            optimizer,
            world,
            pretraining.checkpoint_s,
            recipe.ema,
        )

    def keep_weights(self, report: PretrainingReport) -> None:
        done = self.pretraining
        facts = {
            "layout": str(done.layout),
            "classes": done.classes,
            **asdict(report.metrics),
            "epochs": report.epoch,
            "seed": done.seed,
            "recipe": done.recipe.model_dump(mode="json"),
            "data_fingerprint": done.data_fingerprint,
            **IMAGENET.metadata(),
            **(done.origin or {}),
        }
        metadata = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in facts.items()
        }
        save_weights(done.out, self.backbone, {"format": "pt", **metadata})

    @property
    def backbone(self) -> HybridBackbone:
        """The classifier without its last layer."""
        return self.network.backbone  # type: ignore[return-value]


def pretrain(
    pretraining: Pretraining,
    train: LabelledImages,
    val: LabelledImages,
    *,
    on_step: OnStep | None = None,
) -> Iterator[PretrainingReport]:
    """Train from scratch, from the recipe's weights, or from the checkpoint in
    `pretraining.folder`; report after each epoch that is scored.

    There is no calibration: what is to be fine-tuned is trained in the usual way. The weights are
    in `pretraining.out` when the last report comes. What was recorded, and what is repeated after
    an interruption, is as in `train_candidate`.

    Raises:
        NonFiniteLoss: training diverged; the last checkpoint stays.
        OutOfMemory: it needs more of the GPU than there is.
        OutputError: the disk is full or away; the last checkpoint stays.
        DataError: an image has become unreadable since it was checked; the last checkpoint stays.
        CandidateError: the checkpoint is of another run.
        SpecError: the recipe's weights cannot be used.
    """
    device = torch.device(pretraining.device)
    with limited_memory(device, None), tf32(pretraining.recipe.tf32, device), loading():
        yield from _pretrain(pretraining, train, val, on_step)


def _pretrain(
    pretraining: Pretraining, train: LabelledImages, val: LabelledImages, on_step: OnStep | None
) -> Iterator[PretrainingReport]:
    run = PretrainingTrainer(pretraining, World.current())
    report, recipe = run.resume(), pretraining.recipe
    if recipe.weights and not report and not run.begun:
        run.log(weights=load_weights(run.backbone, recipe).summary())
    yield from remaining_reports(PretrainingEpochs(run, train, val, on_step), report)


class PretrainingEpochs(Epochs[PretrainingReport]):
    """Epochs of a classifier, scored by its accuracy."""

    def __init__(
        self,
        run: PretrainingTrainer,
        train: LabelledImages,
        val: LabelledImages,
        on_step: OnStep | None,
    ) -> None:
        recipe, classes = run.pretraining.recipe, len(run.pretraining.classes)
        self.order = train_order(train, recipe, run.world, run.pretraining.seed)
        steps = recipe.epochs * math.ceil(len(self.order) * self.order.size / recipe.batch)
        device = torch.device(run.pretraining.device)
        super().__init__(run, recipe.over(steps), device, on_step)
        workers = loader_workers(recipe, device, MOST_WORKERS)
        self.batches = train_loader(
            train, classes, recipe, DistributedBatchSampler(self.order, run.world), workers
        )
        self.val_loader = eval_loader(val, classes, recipe, run.world, workers)

    def score(self, loss: float, lr: float) -> PretrainingReport:
        """Score the validation split."""
        run = self.run
        with run.scored_weights():
            metrics = score(run.network, self.val_loader, self.device)
        converged = self.has_converged(metrics.top1)
        run.tick(training=False)
        return PretrainingReport(
            epoch=run.epoch + 1,
            epochs=self.recipe.epochs,
            loss=loss,
            lr=lr,
            metrics=metrics,
            train_s=run.progress.train_s,
            elapsed_s=run.progress.elapsed_s,
            device=device_name(self.device),
            converged=converged,
            memory_peak_bytes=peak_allocated_bytes(self.device),
        )


@torch.inference_mode()
def score(
    classifier: nn.Module, batches: Iterable[ImageBatch], device: torch.device
) -> ClassificationMetrics:
    """Run a classifier over a split: of several processes each over its share, and all get the
    metrics of the whole.

    Args:
        classifier: on `device`; gives logits [B, classes] of images alone; left in the mode it came
            in.
        batches: every image once.
        device: where to run.
    """
    was_training, images, sums = (
        classifier.training,
        0,
        torch.zeros(3, dtype=torch.float64, device=device),
    )
    classifier.eval()
    for batch in batches:
        batch = batch.to(device)
        logits = classifier(batch.images)
        loss = F.cross_entropy(logits, batch.targets, reduction="sum")
        images += len(logits)
        sums += torch.stack(
            [top_k(logits, batch.targets, 1), top_k(logits, batch.targets, 5), loss]
        )
    classifier.train(was_training)
    top1, top5, loss, count = all_reduce_mean(torch.cat([sums, sums.new_tensor([images])])).tolist()
    return ClassificationMetrics(top1 / count, top5 / count, loss / count)
