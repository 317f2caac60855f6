"""Published backbones that the best of a search is held against: each as wide as the same memory
allows.

The memory is the search's budget or, where no layout of the space needs so much, what its largest
one needs: a space of small networks is held against small ones. A published backbone whose
prediction is within the budget's tolerance stays as it is; else its width is one whose attention
runs fused on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import optuna

from nas.profiling.memory.fused_attention import attention_is_fused
from nas.search.budget import Budget
from nas.search.equalizer import largest_that_fits
from nas.utils.formatting import gib
from search_spaces.layout import Layout, doubled

PUBLISHED = {
    "Swin-T": "T2-T2-T6-T2",  # Liu et al., ICCV 2021
    "ResNet-50": "C3-C4-C6-C3@256",  # He et al., CVPR 2016
    "C2-C2-T12-T4": "C2-C2-T12-T4",  # Hong et al., CVPR 2022, Table 3
}
CHANNELS = range(8, 1025, 8)  # of the first stage


@dataclass(frozen=True)
class Baseline:
    """A published backbone by its name, and its layout at the search's memory."""

    name: str
    layout: Layout
    memory_predicted_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Describe it as `nas_baselines` has it in the attributes of a study."""
        memory_gib = gib(self.memory_predicted_bytes)
        return {"name": self.name, "layout": str(self.layout), "memory_predicted_gib": memory_gib}


def equalized(budget: Budget) -> list[Baseline]:
    """Choose the baselines of a search: each published backbone at the search's memory. One whose
    narrowest form does not fit is left out.

    Args:
        budget: gives the limit, the tolerance, and the space, whose norm the C stages take where it
            names one.
    """
    largest = max(budget.predicted_bytes(layout) for layout in budget.space.deepest())
    allowed = min(budget.limit_bytes, largest)
    baselines = [_equalized(name, text, budget, allowed) for name, text in PUBLISHED.items()]
    return [
        baseline for baseline in baselines if baseline.memory_predicted_bytes <= budget.limit_bytes
    ]


def recorded_baselines(study: optuna.Study, budget: Budget) -> list[Layout]:
    """Get the baselines of a study; the first call chooses them and puts them into its attributes,
    because what the search measures may change the predictions later.
    """
    if "nas_baselines" not in study.user_attrs:
        study.set_user_attr("nas_baselines", [each.to_dict() for each in equalized(budget)])
    return [Layout.parse(each["layout"]) for each in study.user_attrs["nas_baselines"]]


def _equalized(name: str, text: str, budget: Budget, allowed: int) -> Baseline:
    published = replace(Layout.parse(text), norm=budget.space.layout_defaults.get("norm", "bn"))
    peak_bytes = budget.predicted_bytes(published)
    if allowed * (1 - budget.spec.budget.tolerance) <= peak_bytes <= allowed:
        return Baseline(name, published, peak_bytes)
    family = [_at_width(published, channels) for channels in CHANNELS]
    precision = budget.spec.recipe.precision
    family = [layout for layout in family if attention_is_fused(layout, precision)]
    return Baseline(name, *largest_that_fits(family, allowed, budget.predicted_bytes))


def _at_width(published: Layout, channels: int) -> Layout:
    widths = zip(published.stages, doubled(channels), strict=True)
    return Layout(
        tuple(replace(stage, width=width) for stage, width in widths), norm=published.norm
    )
