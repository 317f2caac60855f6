"""A training run's state and files: what a checkpoint holds beside the tensors, when one is
written, how it goes on.
"""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from nas.artifacts.history import append_report
from nas.artifacts.paths import CHECKPOINT, LAST_WEIGHTS, LOG, WEIGHTS
from nas.config.recipe import Recipe
from nas.data.samplers import GroupedBatchSampler
from nas.errors import OutOfTime
from nas.models.detectors import Detector
from nas.reports import EpochReport, Report
from nas.training.checkpoint import Stateful, load_checkpoint, save_checkpoint, save_weights
from nas.training.loop import Batches, LearningRates, OnStep, never, train_epoch
from nas.training.lr_schedule import Saturation
from nas.training.weight_average import WeightAverage
from nas.utils.distributed import World, all_gather_object
from nas.utils.files import append_line, os_errors_as_output_error


@dataclass
class TrainerState:
    """What a checkpoint holds of a run beside tensors, as plain JSON.

    Args:
        calibration: what it measured and set; None where there was none.
        report: of the last epoch; None before.
        saturation: fields of the schedule's `Saturation`.
        steps: steps of the running epoch that are done.
        loss_sum: sum of their losses.
        train_s: seconds of training so far.
        elapsed_s: seconds so far, with evaluation and calibration.
    """

    calibration: dict[str, Any] | None = None
    report: dict[str, Any] | None = None
    saturation: dict[str, Any] = field(default_factory=dict)
    steps: int = 0
    loss_sum: float = 0.0
    train_s: float = 0.0
    elapsed_s: float = 0.0


Kind = TypeVar("Kind", bound=Report)


class Trainer(ABC, Generic[Kind]):
    """A training run that can be saved between any two steps, and goes on from there in another
    process as if nothing had happened. Of several processes the first one writes.

    Args:
        folder: of its files.
        key: names the run inside its checkpoints.
        network, optimizer: what is trained.
        world: the processes that train it together.
        checkpoint_s: seconds between checkpoints within an epoch.
        ema: decay of a moving average of the weights; 0: there is none.

    Attributes:
        average: of the weights; None where there is none.
        epoch: epochs done.
        progress: everything else that a checkpoint holds beside tensors.

    Raises:
        OutputError: the folder cannot be made.
    """

    kind: type[Kind]  # of its reports

    def __init__(
        self,
        folder: Path,
        key: str,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        world: World,
        checkpoint_s: float,
        ema: float = 0.0,
    ) -> None:
        self.folder, self.key = folder, key
        self.network, self.optimizer, self.world = network, optimizer, world
        self.average = WeightAverage(network, ema) if ema else None
        self.checkpoint_s, self.epoch, self.progress = checkpoint_s, 0, TrainerState()
        self._losses = _no_losses()
        self._mark_s = self._saved_s = time.perf_counter()
        with os_errors_as_output_error(folder):
            folder.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def keep_weights(self, report: Kind) -> None:
        """Write what the run was made for, with the report of its epoch, one that keeps its weights
        or the last; the network has the weights that were scored.
        """

    def resume(self) -> Kind | None:
        """Go on where the checkpoint was written, if there is one.

        Returns:
            The report of the last epoch before; None where there is no checkpoint, or none of a
            whole epoch.

        Raises:
            CandidateError: the checkpoint is of another run, or cannot be read.
        """
        resumed = load_checkpoint(
            self.folder / CHECKPOINT, self._parts, key=self.key, rank=self.world.rank
        )
        if not resumed:
            return None
        self.epoch, self.progress = resumed[0], TrainerState(**resumed[1])
        self._losses = torch.tensor(self.progress.loss_sum, dtype=torch.float64)
        if not self.progress.report:
            return None
        report = self.kind.from_dict(self.progress.report)
        if report.epoch == self.epoch and not self.progress.steps:
            self._keep_weights_of(report)  # perhaps killed before it had, or in another folder now
        return report

    def _keep_weights_of(self, report: Kind) -> None:
        if (report.keeps or report.last) and self.world.first:
            with self.scored_weights():
                self.keep_weights(report)

    @property
    def _parts(self) -> dict[str, Stateful]:
        """What a checkpoint holds in tensors."""
        parts: dict[str, Stateful] = {"detector": self.network, "optimizer": self.optimizer}
        return {**parts, "average": self.average} if self.average else parts

    @contextmanager
    def scored_weights(self) -> Iterator[None]:
        """Let the network have the weights that are scored and kept: their average, where there is
        one.
        """
        with self.average.applied() if self.average else nullcontext():
            yield

    @property
    def begun(self) -> bool:
        """Whether anything has been done, calibration included."""
        return self.epoch > 0 or self.progress.steps > 0

    @property
    def saturation(self) -> Saturation:
        """State of the schedule, from the validation scores so far."""
        return Saturation(**self.progress.saturation)

    def save(self) -> None:
        """Write a checkpoint.

        Raises:
            OutputError: the disk is full or away; the checkpoint of before is untouched.
        """
        rng = all_gather_object(self.world, torch.get_rng_state())
        self.progress.loss_sum = float(self._losses)
        if self.world.first:
            save_checkpoint(
                self.folder / CHECKPOINT,
                self._parts,
                epoch=self.epoch,
                key=self.key,
                extra=asdict(self.progress),
                rng=rng,
            )
        self._saved_s = time.perf_counter()

    def tick(self, *, training: bool) -> None:
        """Account for the time since the last call, as training or as anything else."""
        passed_s, self._mark_s = time.perf_counter() - self._mark_s, time.perf_counter()
        self.progress.elapsed_s += passed_s
        self.progress.train_s += passed_s if training else 0

    def after_step(self, step: int, steps: int, loss: Tensor | float) -> None:
        """Count a step, and write a checkpoint where it is time for one."""
        self.progress.steps, self._losses = step, self._losses + loss
        if self.average:
            self.average.update()
        due = time.perf_counter() - self._saved_s >= self.checkpoint_s
        if step < steps and self.world.agreed(due):
            self.tick(training=True)
            self.save()

    def train(
        self,
        network: nn.Module,
        batches: Batches,
        order: GroupedBatchSampler,
        recipe: Recipe,
        *,
        lrs: LearningRates,
        on_step: OnStep | None,
        is_over: Callable[[], bool] = never,
    ) -> tuple[float, float]:
        """Train for what is left of an epoch, the first that has not ended.

        Args:
            network: the run's, perhaps `wrap_ddp`.
            batches: loads this process's share of `order`.
            order: batches of all processes together.
            recipe: says how.
            lrs: learning rate of each of the epoch's steps.
            on_step: called after each step, when it has been counted.
            is_over: asked after each step whether the epoch ends with it.

        Returns:
            Its mean loss, and its last learning rate.
        """
        accumulate = recipe.batch // order.size
        order.epoch, order.skipped = self.epoch, self.progress.steps * accumulate

        def after_step(step: int, of: int, loss: Tensor | float) -> None:
            self.after_step(step, of, loss)
            if on_step:
                on_step(step, of, loss)

        self.tick(training=False)
        loss = train_epoch(
            network,
            batches,
            self.optimizer,
            lrs=lrs,
            accumulate=accumulate,
            clip_norm=recipe.clip_norm,
            precision=recipe.precision,
            device=next(network.parameters()).device,
            on_step=after_step,
            done=(self.progress.steps, self.progress.loss_sum),
            is_over=is_over,
        )
        self.tick(training=True)
        train_s, lr = round(self.progress.train_s, 3), self.optimizer.param_groups[0]["lr"]
        self.log(epoch=self.epoch + 1, loss=loss, lr=lr, train_s=train_s)
        return loss, lr

    @staticmethod
    def steps_per_epoch(order: GroupedBatchSampler, recipe: Recipe) -> int:
        """Count the optimizer's steps of an epoch over `order`."""
        return math.ceil(len(order) * order.size / recipe.batch)

    def log(self, **values: float | str) -> None:
        """Add a line to the log."""
        if self.world.first:
            append_line(self.folder / LOG, json.dumps(values))

    def end_epoch(self, report: Kind) -> Kind:
        """Keep an epoch that is over: its report, a checkpoint and, where they are kept, the
        weights; these after the checkpoint, from which `resume` can write them too.

        Returns:
            The report.
        """
        self.progress.report = asdict(report)
        if self.world.first:  # before the checkpoint: an epoch that is not saved comes again
            append_report(self.folder, report)
        self.end_unscored_epoch()
        self._keep_weights_of(report)
        return report

    def end_unscored_epoch(self) -> None:
        """Keep an epoch that is over without a report: a checkpoint alone."""
        self.epoch, self.progress.steps, self._losses = self.epoch + 1, 0, _no_losses()
        self.save()


def _no_losses() -> Tensor:
    """The sum of an epoch's losses before its first step; as precise as that of `train_epoch`, so
    that a run that was interrupted reports the same mean.
    """
    return torch.zeros((), dtype=torch.float64)


class CandidateTrainer(Trainer[EpochReport]):
    """The run of a detector, whose weights stay in its folder.

    Attributes:
        network: the detector.
        keeps_last: the weights of the last epoch stay beside those that are kept.
        stop_at: seconds since 1970 after which it stops between two steps; None: never.
    """

    kind = EpochReport
    network: Detector
    keeps_last = False
    stop_at: float | None = None

    def after_step(self, step: int, steps: int, loss: Tensor | float) -> None:
        """Count a step, and stop with a checkpoint where the time is over.

        Raises:
            OutOfTime: `stop_at` has come.
        """
        super().after_step(step, steps, loss)
        if self.stop_at is None or step == steps:
            return
        if self.world.agreed(time.time() >= self.stop_at):
            self.tick(training=True)
            self.save()
            raise OutOfTime("the time of the search is over")

    def keep_weights(self, report: EpochReport) -> None:
        if report.keeps:
            save_weights(self.folder / WEIGHTS, self.network)
        if report.last and self.keeps_last:
            save_weights(self.folder / LAST_WEIGHTS, self.network)
