"""A training that ends in time: its length follows the clock, its learning rate the length."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from nas.config.recipe import Recipe
from nas.training.lr_schedule import lr_at

MEASURED_STEPS = 3  # of an epoch, from which on they say how long the others take
LEAST_PART = 0.25  # of an epoch: to train and score less is not worth its scoring


@dataclass(frozen=True)
class TimeSlot:
    """When a training has to be over, and how long its parts are predicted to take.

    Args:
        ends_at: seconds since 1970.
        step_s: seconds of a training step.
        score_s: seconds to score the validation split and to write a checkpoint.
        end_s: seconds of what follows the last epoch.
    """

    ends_at: float
    step_s: float
    score_s: float
    end_s: float = 0.0


class Pace:
    """Plans a training, before each of its steps, for the time that is left. The recipe's schedule
    is stretched over as many steps as fit; the last epoch may be a part of one.

    Args:
        slot: when the training ends; its predictions count until something is measured. Where steps
            take longer than predicted, all else is taken to be as much slower.
        clock: seconds since 1970.

    Attributes:
        epochs: of the whole training, as planned now.
        steps: of the epoch that is trained now.
    """

    def __init__(self, slot: TimeSlot, clock: Callable[[], float] = time.time) -> None:
        self.slot, self.clock = slot, clock
        self.step_s = slot.step_s
        self.epochs = self.steps = 0
        self._scored_from: float | None = None
        self._scored_s: float | None = None

    @property
    def slower(self) -> float:
        """Times that steps take as long as predicted, at least 1."""
        return max(1.0, self.step_s / self.slot.step_s)

    @property
    def score_s(self) -> float:
        """Seconds that scoring takes, with all that comes before the next epoch."""
        return self.slot.score_s * self.slower if self._scored_s is None else self._scored_s

    @property
    def left_s(self) -> float:
        """Seconds that are left for training and scoring."""
        return self.slot.ends_at - self.slot.end_s * self.slower - self.clock()

    def begin_epoch(
        self, epoch: int, done: int, steps_per_epoch: int, recipe: Recipe, decays: int
    ) -> PacedRates:
        """Plan the training for an epoch that begins now, or goes on.

        Args:
            epoch: epochs that are over.
            done: steps of this one that are, too.
            steps_per_epoch: of a whole one.
            recipe: how is trained.
            decays: how often its schedule `saturate` has fallen.

        Returns:
            The learning rates of the epoch.
        """
        if self._scored_from is not None:
            self._scored_s, self._scored_from = self.clock() - self._scored_from, None
        return PacedRates(self, epoch, done, steps_per_epoch, recipe, decays)

    def begin_scoring(self) -> None:
        """Hear that an epoch is trained, and what is not training begins."""
        self._scored_from = self.clock()

    def plan(self, epoch: int, done: int, steps_per_epoch: int, recipe: Recipe) -> int:
        """Plan what is left of the training; returns its steps, from its beginning to its end."""
        score_s = self.score_s / recipe.eval_every
        fitting = fitting_steps(
            self.left_s + done * self.step_s, self.step_s, score_s, steps_per_epoch
        )
        fitting = max(fitting, done + 1)
        self.steps = min(steps_per_epoch, fitting)
        self.epochs = epoch + math.ceil(fitting / steps_per_epoch)
        return epoch * steps_per_epoch + fitting

    def is_over(self) -> bool:
        """Whether nothing but the scoring fits into the time that is left."""
        return self.left_s <= self.score_s


class PacedRates:
    """The learning rates of one epoch: those of the recipe at the same share of the training, as
    long as that is planned to be in the moment of the step.

    Args:
        pace: plans the training.
        epoch, done, steps_per_epoch, recipe, decays: as `Pace.begin_epoch` takes them.
    """

    def __init__(
        self, pace: Pace, epoch: int, done: int, steps_per_epoch: int, recipe: Recipe, decays: int
    ) -> None:
        self.pace, self.recipe, self.decays = pace, recipe, decays
        self.epoch, self.done, self.steps_per_epoch = epoch, done, steps_per_epoch
        self.began_s = pace.clock()
        self.total = pace.plan(epoch, done, steps_per_epoch, recipe)

    def __len__(self) -> int:
        return self.pace.steps

    def __getitem__(self, step: int, /) -> float:
        if step - self.done >= MEASURED_STEPS:
            self.pace.step_s = (self.pace.clock() - self.began_s) / (step - self.done)
            self.total = self.pace.plan(self.epoch, step, self.steps_per_epoch, self.recipe)
        nominal = self.recipe.epochs * self.steps_per_epoch
        place = (self.epoch * self.steps_per_epoch + step) * nominal / self.total
        return lr_at(place, self.steps_per_epoch, self.recipe, self.decays)


def fitting_steps(left_s: float, step_s: float, score_s: float, steps_per_epoch: int) -> int:
    """Count the steps that fit into a time, if each epoch, whole or not, is scored; at least one.

    Args:
        left_s: the time, seconds.
        step_s: seconds of a step.
        score_s: seconds to score, for each epoch.
        steps_per_epoch: of a whole epoch. After whole ones a part counts from `LEAST_PART` on.
    """
    epoch_s = steps_per_epoch * step_s + score_s
    whole = max(0, int(left_s / epoch_s))
    part = int((left_s - whole * epoch_s - score_s) / step_s)
    if whole and part < LEAST_PART * steps_per_epoch:
        part = 0
    return max(1, whole * steps_per_epoch + part)
