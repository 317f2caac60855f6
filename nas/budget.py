"""The budget of a search in bytes, what its candidates are predicted to need, and what a search would choose from."""

from __future__ import annotations

import itertools
import statistics
from typing import Any

from nas.data.check import Progress
from nas.data.prepare import DataFacts
from nas.memory import Training, predict_memory
from nas.spec import Recipe, SearchSpec
from nas.units import gib, parse_bytes
from search_spaces.layout import Layout

SAMPLED = 50  # layouts of a preview


def predicted_bytes(spec: SearchSpec, facts: DataFacts, layout: Layout) -> int:
    """Peak training memory of a candidate on the largest batch that this data set and recipe can give."""
    return predict_memory(layout, spec.detector, facts.num_classes, training_of(spec.recipe, facts)).peak_bytes


def training_of(recipe: Recipe, facts: DataFacts) -> Training:
    """What memory depends on, of a recipe and a data set."""
    return Training(
        batch_shape=facts.batch_shape,
        boxes_per_image=facts.max_boxes_per_image,
        precision=recipe.precision,
        optimizer=recipe.optimizer,
        checkpointing=recipe.checkpointing,
        accumulates=recipe.batch > recipe.images_per_step,
    )


def budget_bytes(spec: SearchSpec, facts: DataFacts) -> int:
    """`budget.memory`, or what the layout of `budget.like` needs."""
    like = spec.budget.like
    return predicted_bytes(spec, facts, Layout.parse(like)) if like else parse_bytes(spec.budget.memory)


def preview(spec: SearchSpec, facts: DataFacts, on_layout: Progress) -> dict[str, Any]:
    """Size of the space, and from a random sample of its layouts the share that fits and the memory needed."""
    space, budget = spec.search_space(), budget_bytes(spec, facts)
    sampled = list(itertools.islice(space.shuffled(spec.search.seed), SAMPLED))
    sizes = []
    for done, layout in enumerate(sampled, start=1):
        sizes.append(predicted_bytes(spec, facts, layout))
        on_layout("layouts", done, len(sampled))
    return {
        "study": spec.study,
        "space": f"{space.name}: {space.describe()}",
        "layouts": len(space),
        "layouts_sampled": len(sampled),
        "share_that_fits": sum(size <= budget for size in sizes) / len(sizes),
        "budget_gib": gib(budget),
        "memory_predicted_gib_min": gib(min(sizes)),
        "memory_predicted_gib_median": gib(statistics.median(sizes)),
        "memory_predicted_gib_max": gib(max(sizes)),
        "largest_batch_shape": list(facts.batch_shape),
        "train_images": facts.train_images,
        "val_images": facts.val_images,
        "classes": facts.num_classes,
        "trials": spec.search.trials,
    }
