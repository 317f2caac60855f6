"""The budget of a search: the limit in bytes, and what candidates are predicted to need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nas.config.recipe import Recipe
from nas.config.spec import SearchSpec
from nas.profiling.flops import Cost, count_cost
from nas.profiling.memory import Training, predict_memory
from nas.profiling.memory.correction import Correction, fit_correction
from nas.reports import DatasetSummary, MemoryEstimate
from nas.search.caps import Caps
from nas.search.equalizer import Equalizer
from nas.utils.formatting import GIB, gib
from nas.utils.gpu_presence import has_hopper
from search_spaces.layout import Layout

SAMPLED = 100  # layouts, where a space is known by a random sample


class Budget:
    """Peak allocated memory of a training step: what a search allows, and what layouts are
    predicted to need.

    Predictions are those of `nas.profiling.memory` until `fit_correction` corrects them by what was
    measured. The limit never changes: with `budget.like` it is the prediction for that layout
    before any correction, because the share of a GPU that workers book and the limit that a study
    has recorded follow from it.

    Args:
        spec: the request, which names the space and the budget.
        facts: the data set, which decides the largest batch.
        recorded_gib: limit that an existing study has recorded, GiB with four decimals. With
            `budget.like` it holds even where this version predicts something else; where both agree
            to the recorded precision, the limit is the prediction to the byte.

    Attributes:
        space: the search space.
        caps: limits beside memory.
        correction: what measured trials put on the predictions; None before any.
        equalizer: solves layouts for the limit, in mode `equalize`; else None.
    """

    def __init__(
        self, spec: SearchSpec, facts: DatasetSummary, recorded_gib: float | None = None
    ) -> None:
        self.spec, self.facts = spec, facts
        self.space = spec.search_space()
        self.training = training_of(spec.recipe, facts)
        height, width = facts.batch_shape[2:]
        self.caps = Caps(spec, self.cost, (height, width))
        self.correction: Correction | None = None
        self._limit_bytes = self._decide_limit(recorded_gib)
        self.equalizer = self._equalizer()

    @property
    def limit_bytes(self) -> int:
        """Peak allocated memory that no candidate may exceed, in bytes; the same from the first
        moment of a study to its last.
        """
        return self._limit_bytes

    def predicted_bytes(self, layout: Layout) -> int:
        """Predict the peak training memory of a candidate, in bytes, on the largest batch that the
        data set and the recipe can give; corrected, where trials were measured.
        """
        traced = self._traced_bytes(layout)
        return self.correction(traced) if self.correction else traced

    def cost(self, layout: Layout) -> Cost:
        """Count the parameters of a candidate, and its multiply-adds for one image of the largest
        batch.
        """
        return count_cost(
            layout, self.spec.detector, self.facts.num_classes, self.facts.batch_shape[2:]
        )

    def figures(self, layout: Layout) -> dict[str, Any]:
        """Describe a candidate before it is trained: user attributes of its trial by name, see
        `nas.study.schema`.
        """
        cost = self.cost(layout)
        return {
            "layout": str(layout),
            "layout_id": layout.layout_id,
            "detector": self.spec.detector.name,
            "params": cost.params,
            "flops": cost.flops,
            "memory_predicted_gib": gib(self.predicted_bytes(layout)),
            "memory_parts_gib": self.parts_gib(layout),
            **self.caps.figures(layout),
        }

    def parts_gib(self, layout: Layout) -> dict[str, float]:
        """Take the prediction of a candidate apart, before it is corrected: GiB by the names of
        `MemoryEstimate.parts`.
        """
        return {part: gib(size) for part, size in self._traced(layout).parts().items()}

    def fit_correction(self, device: str, measured: Sequence[tuple[Layout, int]]) -> Correction:
        """Correct the predictions by what trials were measured to need on one kind of card.

        Args:
            device: name of the card.
            measured: layouts, each with its measured peak in bytes.

        Returns:
            The correction, which holds from now on in place of any earlier one.
        """
        traced = [self._traced_bytes(layout) for layout, _ in measured]
        self.correction = fit_correction(device, traced, [size for _, size in measured])
        self.equalizer = self._equalizer()  # forgets what it solved by earlier predictions
        return self.correction

    def describe(self) -> str:
        """Say the budget in words: `the budget is 16.0 GiB`."""
        like = f" (that of {self.spec.budget.like})" if self.spec.budget.like else ""
        least = f"{gib(self.equalizer.least_bytes)} to " if self.equalizer else ""
        memory = f"the budget is {least}{gib(self.limit_bytes)} GiB{like}"
        return ", ".join([memory, *self.caps.limits()])

    def _traced_bytes(self, layout: Layout) -> int:
        return self._traced(layout).peak_bytes

    def _traced(self, layout: Layout) -> MemoryEstimate:
        return predict_memory(layout, self.spec.detector, self.facts.num_classes, self.training)

    def _decide_limit(self, recorded_gib: float | None) -> int:
        asked = self.spec.budget
        if not asked.like:
            return int(asked.memory)
        predicted_bytes = self._traced_bytes(Layout.parse(asked.like))
        if recorded_gib is None or gib(predicted_bytes) == recorded_gib:
            return predicted_bytes
        return round(recorded_gib * GIB)

    def _equalizer(self) -> Equalizer | None:
        asked = self.spec.budget
        if asked.mode != "equalize":
            return None
        return Equalizer(
            self.space,
            self.limit_bytes,
            tolerance=asked.tolerance,
            vary=asked.vary,
            predict=self.predicted_bytes,
        )


def training_of(recipe: Recipe, facts: DatasetSummary) -> Training:
    """Collect what the memory of a training step depends on, of a recipe and a data set, and of
    this machine's GPU.
    """
    return Training(
        batch_shape=facts.batch_shape,
        boxes_per_image=facts.max_boxes_per_image,
        precision=recipe.precision,
        optimizer=recipe.optimizer,
        checkpointing=recipe.checkpointing,
        channels_last=recipe.channels_last,
        average=recipe.ema > 0,
        drop_path=recipe.drop_path > 0,
        frozen_stages=recipe.frozen_stages,
        accumulates=recipe.batch > recipe.micro_batch_size,
        hopper=has_hopper(),
    )
