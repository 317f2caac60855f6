"""The budget of a search: the limit in bytes, what candidates are predicted to need, and what a
search would choose from.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from nas.config.recipe import Recipe
from nas.config.spec import SearchSpec
from nas.errors import StudyError
from nas.profiling.flops import Cost, count_cost
from nas.profiling.memory import Training, predict_memory
from nas.profiling.memory.correction import Correction, fit_correction
from nas.reports import DatasetSummary, MemoryEstimate
from nas.search.equalizer import Equalizer, PatternFit
from nas.utils.formatting import gib
from nas.utils.progress import CountProgress
from search_spaces.layout import Layout

SAMPLED = 100  # layouts of a preview


class Budget:
    """Peak allocated memory of a training step: what a search allows, and what layouts are
    predicted to need.

    Predictions are corrected by what was measured (`learn`); before that they are those of
    `nas.profiling.memory`.
    """

    def __init__(self, spec: SearchSpec, facts: DatasetSummary) -> None:
        self.spec, self.facts = spec, facts
        self.space = spec.search_space()
        self.training = training_of(spec.recipe, facts)
        self.correction: Correction | None = None
        self.unsolved: list[PatternFit] = []  # patterns that nothing makes use the budget
        self._apply_correction()

    def predicted_bytes(self, layout: Layout) -> int:
        """Peak training memory of a candidate on the largest batch that this data set and recipe
        can give.
        """
        traced = self._traced_bytes(layout)
        return self.correction(traced) if self.correction else traced

    def cost(self, layout: Layout) -> Cost:
        """Parameters of a candidate, and multiply-adds of one image of the largest batch."""
        return count_cost(
            layout, self.spec.detector, self.facts.num_classes, self.facts.batch_shape[2:]
        )

    def figures(self, layout: Layout) -> dict[str, Any]:
        """What is known of a candidate before it is trained, by the names of its attributes."""
        cost = self.cost(layout)
        return {
            "layout": str(layout),
            "layout_id": layout.layout_id,
            "detector": self.spec.detector.name,
            "params": cost.params,
            "flops": cost.flops,
            "memory_predicted_gib": gib(self.predicted_bytes(layout)),
            "memory_parts_gib": self.parts_gib(layout),
        }

    def parts_gib(self, layout: Layout) -> dict[str, float]:
        """What the prediction of a candidate consists of, before it is corrected; see
        `MemoryEstimate.parts`.
        """
        return {part: gib(size) for part, size in self._traced(layout).parts().items()}

    def fit_correction(self, device: str, measured: Sequence[tuple[Layout, int]]) -> Correction:
        """Correct the predictions by measured peaks, in bytes, of trials on one kind of card."""
        traced = [self._traced_bytes(layout) for layout, _ in measured]
        self.correction = fit_correction(device, traced, [size for _, size in measured])
        self._apply_correction()
        return self.correction

    def describe(self) -> str:
        """The budget in words."""
        like = f" (that of {self.spec.budget.like})" if self.spec.budget.like else ""
        least = f"{gib(self.equalizer.least_bytes)} to " if self.equalizer else ""
        return f"the budget is {least}{gib(self.limit_bytes)} GiB{like}"

    def check(self, settled: Callable[[Layout], Layout | None]) -> None:
        """Find out before the search whether there is anything to train. `settled` gives what is
        trained for a suggestion.

        Raises:
            StudyError: nothing in the space meets the budget, or a layout of `search.try` does not.
        """
        for text in self.spec.search.try_first:
            if settled(layout := Layout.parse(text)) != layout:
                raise StudyError(
                    f"search.try: {text} needs {gib(self.predicted_bytes(layout))} GiB, "
                    f"{self.describe()}"
                )
        if self.equalizer:
            self._check_patterns(self.equalizer)
            return
        shallowest = {layout: self.predicted_bytes(layout) for layout in self.space.shallowest()}
        smallest = min(shallowest, key=shallowest.__getitem__)
        if shallowest[smallest] > self.limit_bytes:
            raise StudyError(
                f"no layout of space {self.space.name!r} fits into {gib(self.limit_bytes)} GiB: "
                f"the smallest is {smallest} "
                f"with {gib(shallowest[smallest])} GiB; raise budget.memory, or lower "
                "recipe.image_size or "
                "recipe.images_per_gpu"
            )

    def _check_patterns(self, equalizer: Equalizer) -> None:
        fits = equalizer.patterns()
        self.unsolved = [fit for fit in fits if not fit.solved]
        if len(self.unsolved) == len(fits):
            nearest = min(fits, key=lambda fit: abs(fit.peak_bytes - self.limit_bytes))
            raise StudyError(
                f"no layout of space {self.space.name!r} meets the budget: {self.describe()}; the "
                f"nearest is {nearest.layout} "
                f"with {gib(nearest.peak_bytes)} GiB; raise budget.tolerance, or set budget.vary "
                "to the other of depth and "
                "width"
            )

    def _traced_bytes(self, layout: Layout) -> int:
        return self._traced(layout).peak_bytes

    def _traced(self, layout: Layout) -> MemoryEstimate:
        return predict_memory(layout, self.spec.detector, self.facts.num_classes, self.training)

    def _apply_correction(self) -> None:
        """Everything that follows from the correction."""
        asked = self.spec.budget
        self.limit_bytes = (
            self.predicted_bytes(Layout.parse(asked.like)) if asked.like else int(asked.memory)
        )
        self.equalizer = None
        if asked.mode == "equalize":
            self.equalizer = Equalizer(
                self.space,
                self.limit_bytes,
                tolerance=asked.tolerance,
                vary=asked.vary,
                predict=self.predicted_bytes,
            )


def training_of(recipe: Recipe, facts: DatasetSummary) -> Training:
    """What memory depends on, of a recipe and a data set."""
    return Training(
        batch_shape=facts.batch_shape,
        boxes_per_image=facts.max_boxes_per_image,
        precision=recipe.precision,
        optimizer=recipe.optimizer,
        checkpointing=recipe.checkpointing,
        channels_last=recipe.channels_last,
        accumulates=recipe.batch > recipe.micro_batch_size,
    )


def preview(spec: SearchSpec, facts: DatasetSummary, on_layout: CountProgress) -> dict[str, Any]:
    """Size of the space, and from a random sample of its layouts the share that fits and the memory
    needed.

    In mode `equalize` also, for each pattern, the layout nearest to the budget.
    """
    budget = Budget(spec, facts)
    space, equalizer = budget.space, budget.equalizer
    sampled = list(itertools.islice(space.shuffled(spec.search.seed), SAMPLED))
    sizes, usable = [], 0
    for done, layout in enumerate(sampled, start=1):
        sizes.append(budget.predicted_bytes(layout))
        usable += (
            equalizer.solve(layout) is not None if equalizer else sizes[-1] <= budget.limit_bytes
        )
        on_layout("layouts", done, len(sampled))
    return {
        "study": spec.study,
        "space": f"{space.name}: {space.describe()}",
        "layouts": len(space),
        "layouts_sampled": len(sampled),
        "share_that_fits": usable / len(sizes),
        "budget": budget.describe(),
        "budget_gib": gib(budget.limit_bytes),
        "budget_mode": spec.budget.mode,
        "memory_predicted_gib_min": gib(min(sizes)),
        "memory_predicted_gib_median": gib(statistics.median(sizes)),
        "memory_predicted_gib_max": gib(max(sizes)),
        "patterns": [_pattern_row(fit, budget.limit_bytes) for fit in equalizer.patterns()]
        if equalizer
        else [],
        "largest_batch_shape": list(facts.batch_shape),
        "train_images": facts.train_images,
        "val_images": facts.val_images,
        "classes": facts.num_classes,
        "trials": spec.search.trials,
    }


def _pattern_row(fit: PatternFit, limit_bytes: int) -> dict[str, Any]:
    return {
        "pattern": fit.pattern,
        "layout": str(fit.layout),
        "memory_predicted_gib": gib(fit.peak_bytes),
        "deviation": round(fit.peak_bytes / limit_bytes - 1, 4),
        "solved": fit.solved,
    }
