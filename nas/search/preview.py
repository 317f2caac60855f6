"""What a search would choose from, shown by a dry run."""

from __future__ import annotations

import itertools
import statistics
from typing import Any

from nas.search.budget import SAMPLED, Budget
from nas.search.equalizer import PatternFit
from nas.utils.formatting import gib
from nas.utils.progress import CountProgress


def preview(budget: Budget, on_layout: CountProgress) -> dict[str, Any]:
    """Describe the space of a search, and from a random sample of its layouts the share that fits
    and the memory needed; in mode `equalize` also, for each pattern, the layout nearest to the
    budget. Latency, which takes time to measure, is left out of the share.

    Args:
        budget: the budget of the search, with its request, data and space.
        on_layout: told after each layout of the sample, as `on_layout("layouts", done, total)`.

    Returns:
        Plain JSON, as `nas-submit --dry-run --json` prints it; sizes in GiB, shares 0 to 1.
    """
    spec, facts, space, equalizer = budget.spec, budget.facts, budget.space, budget.equalizer
    sampled = list(itertools.islice(space.shuffled(spec.search.seed), SAMPLED))
    sizes, usable = [], 0
    for done, layout in enumerate(sampled, start=1):
        sizes.append(budget.predicted_bytes(layout))
        fits = layout if sizes[-1] <= budget.limit_bytes else None
        settled = equalizer.solve(layout) if equalizer else fits
        usable += settled is not None and not budget.caps.counted_excess(settled)
        on_layout("layouts", done, len(sampled))
    patterns = equalizer.patterns() if equalizer else []
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
        "patterns": [_pattern_row(fit, budget.limit_bytes) for fit in patterns],
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
