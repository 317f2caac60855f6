"""A training that ends in time: its length follows the clock, its learning rate the length."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from nas.config.recipe import Recipe
from nas.training.lr_schedule import lr_at

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
    """Plans a training, before each of its epochs, for the time that is left. The recipe's schedule
    is stretched over as many steps as fit; the last epoch may be a part of one.

    Args:
        slot: when the training ends; its predictions count until something is measured.
        clock: seconds since 1970.

    Attributes:
        epochs: of the whole training, as planned now.
        steps: of the epoch that is trained next.
    """

    def __init__(self, slot: TimeSlot, clock: Callable[[], float] = time.time) -> None:
        self.slot, self.clock = slot, clock
        self.step_s, self.score_s = slot.step_s, slot.score_s
        self.epochs = self.steps = self._total = 0

    @property
    def left_s(self) -> float:
        """Seconds that are left for training and scoring."""
        return self.slot.ends_at - self.slot.end_s - self.clock()

    def plan(self, epoch: int, done: int, steps_per_epoch: int, recipe: Recipe) -> None:
        """Plan what is left of the training.

        Args:
            epoch: epochs that are over.
            done: steps of the next one that are, too.
            steps_per_epoch: of a whole one.
            recipe: says after how many epochs the validation split is scored.
        """
        score_s = self.score_s / recipe.eval_every
        fitting = fitting_steps(
            self.left_s + done * self.step_s, self.step_s, score_s, steps_per_epoch
        )
        fitting = max(fitting, done + 1)
        self._total = epoch * steps_per_epoch + fitting
        self.steps = min(steps_per_epoch, fitting)
        self.epochs = epoch + math.ceil(fitting / steps_per_epoch)

    def learning_rates(
        self, epoch: int, steps_per_epoch: int, recipe: Recipe, decays: int
    ) -> list[float]:
        """One for each step of the epoch after `epoch` others: those of the recipe at the same
        share of the training.
        """
        shrink = recipe.epochs * steps_per_epoch / self._total
        first = epoch * steps_per_epoch
        return [
            lr_at((first + step) * shrink, steps_per_epoch, recipe, decays)
            for step in range(self.steps)
        ]

    def is_over(self) -> bool:
        """Whether nothing but the scoring fits into the time that is left."""
        return self.left_s <= self.score_s

    def took(self, *, step_s: float | None = None, score_s: float | None = None) -> None:
        """Hear what a step, or the scoring, has taken: the next ones are taken to be like it."""
        self.step_s = self.step_s if step_s is None else step_s
        self.score_s = self.score_s if score_s is None else score_s


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
