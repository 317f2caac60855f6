"""The epochs of a training run, of a candidate or of a pre-training: train, score, report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict
from typing import Generic

import torch

from nas.config.recipe import Recipe
from nas.data.samplers import GroupedBatchSampler
from nas.models.compile import compile_blocks
from nas.training.loop import Batches, LearningRates, OnStep, never
from nas.training.lr_schedule import lr_at
from nas.training.pace import Pace
from nas.training.trainer import Kind, Trainer
from nas.utils.distributed import broadcast_buffers, wrap_ddp


class Epochs(ABC, Generic[Kind]):
    """Trains and scores one epoch after the other. A subclass sets the attributes below in its
    constructor and says in `score` how the network is scored.

    Args:
        run: what is trained, and its state.
        recipe: how.
        device: where the run's network is.
        on_step: called after each step.
        pace: plans the length of the training by the clock; None: it is the recipe's.

    Attributes:
        order: training batches of all processes together.
        batches: loads this process's share of `order`.

    Raises:
        SpecError: the recipe wants compilation, and there is no compiler.
    """

    order: GroupedBatchSampler
    batches: Batches

    def __init__(
        self,
        run: Trainer[Kind],
        recipe: Recipe,
        device: torch.device,
        on_step: OnStep | None,
        pace: Pace | None = None,
    ) -> None:
        self.run, self.recipe, self.device, self.on_step = run, recipe, device, on_step
        self.pace = pace
        if recipe.compile:
            compile_blocks(run.network)
        self.network = wrap_ddp(run.network, run.world)

    @abstractmethod
    def score(self, loss: float, lr: float) -> Kind:
        """Score the network after an epoch, account for the time, and report.

        Args:
            loss: mean training loss of the epoch.
            lr: learning rate of its last step.
        """

    def next(self) -> Kind:
        """Train the epochs after those that the run has done, up to the first that is scored, and
        report that.
        """
        loss, lr = self._train()
        while not self._is_scored(self.run.epoch + 1):
            self.run.end_unscored_epoch()
            loss, lr = self._train()
        if self.pace:
            self.pace.begin_scoring()
        return self.score(loss, lr)

    @property
    def epochs(self) -> int:
        """How many epochs the training has, as far as that is known."""
        return self.pace.epochs if self.pace else self.recipe.epochs

    def _is_scored(self, epoch: int) -> bool:
        return self.recipe.scores(epoch) or epoch >= self.epochs

    def _train(self) -> tuple[float, float]:
        """Train an epoch: its mean loss and its last learning rate."""
        loss, lr = self.run.train(
            self.network,
            self.batches,
            self.order,
            self.recipe,
            lrs=self._learning_rates(),
            on_step=self.on_step,
            is_over=self.pace.is_over if self.pace else never,
        )
        broadcast_buffers(self.run.network, self.run.world)
        if self.run.average:
            with self.run.scored_weights():
                broadcast_buffers(self.run.network, self.run.world)
        return loss, lr

    def _learning_rates(self) -> LearningRates:
        """One for each step of the epoch that is trained next."""
        run, recipe = self.run, self.recipe
        steps, decays = run.steps_per_epoch(self.order, recipe), run.saturation.decays
        if self.pace:
            return self.pace.begin_epoch(run.epoch, run.progress.steps, steps, recipe, decays)
        first = run.epoch * steps
        return [lr_at(first + step, steps, recipe, decays) for step in range(steps)]

    def has_converged(self, score: float) -> bool:
        """Tell the schedule the validation score of an epoch, a fraction, and ask whether that was
        the last one.
        """
        steps = self.run.steps_per_epoch(self.order, self.recipe)
        warm = (self.run.epoch + 1) * steps >= self.recipe.warmup(steps)
        saturation = self.run.saturation.after(score, self.recipe, warm=warm)
        self.run.progress.saturation = asdict(saturation)
        return saturation.converged


def remaining_reports(epochs: Epochs[Kind], report: Kind | None) -> Iterator[Kind]:
    """Train to the end, up to the next epoch that is scored each time a report is asked for.

    Args:
        epochs: of the run.
        report: the last one before its checkpoint, which is repeated first in case nobody heard it.
    """
    if report:
        yield report
    while not (report and report.last):
        report = epochs.run.end_epoch(epochs.next())
        yield report
