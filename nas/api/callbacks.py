"""Who is told what happens while something is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from nas.reports import EpochReport, PretrainingReport
    from search_spaces.layout import Layout


class TrainingCallback:
    """Is told what happens in one training; every method does nothing here.

    Methods run in the process that trains, between its steps, in the order in which they stand
    here. What they raise ends the training, whose last checkpoint stays.
    """

    def on_begin(self, layout: Layout, epochs: int) -> None:
        """A training of `layout` begins, or goes on, that has `epochs` epochs altogether."""

    def on_weights(self, summary: str) -> None:
        """The training will start from a file of weights; `summary` says what it takes of it."""

    def on_image(self, split: str, done: int, total: int) -> None:
        """`done` of the `total` images of a split have been checked."""

    def on_note(self, text: str) -> None:
        """Something is done differently than was asked for; `text` is a sentence."""

    def on_step(self, step: int, steps: int, loss: Tensor | float) -> None:
        """Step `step` of the `steps` steps of an epoch is done, counted from 1; `loss` may still be
        on the GPU.
        """

    def on_report(self, report: EpochReport | PretrainingReport) -> None:
        """An epoch has been trained, scored and recorded; with `recipe.eval_every` not each is."""

    def on_trained(self) -> None:
        """The last epoch is over; what follows only writes files."""


class TrainingCallbackList(TrainingCallback):
    """Several callbacks as one; each hears everything, in the order of the list."""

    def __init__(self, callbacks: Sequence[TrainingCallback]) -> None:
        self.callbacks = tuple(callbacks)

    def on_begin(self, layout: Layout, epochs: int) -> None:
        for callback in self.callbacks:
            callback.on_begin(layout, epochs)

    def on_weights(self, summary: str) -> None:
        for callback in self.callbacks:
            callback.on_weights(summary)

    def on_image(self, split: str, done: int, total: int) -> None:
        for callback in self.callbacks:
            callback.on_image(split, done, total)

    def on_note(self, text: str) -> None:
        for callback in self.callbacks:
            callback.on_note(text)

    def on_step(self, step: int, steps: int, loss: Tensor | float) -> None:
        for callback in self.callbacks:
            callback.on_step(step, steps, loss)

    def on_report(self, report: EpochReport | PretrainingReport) -> None:
        for callback in self.callbacks:
            callback.on_report(report)

    def on_trained(self) -> None:
        for callback in self.callbacks:
            callback.on_trained()
