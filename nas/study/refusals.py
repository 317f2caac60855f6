"""What the sampler suggested and nobody trained, from the attribute `nas_refusals` of a study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def refused_by_prediction(refusals: Mapping[str, Any]) -> int:
    """How many suggestions were not trained because of their predicted memory: over the budget, or
    unable to use it where the search asks for equal memory.
    """
    return int(refusals.get("over_budget", 0) + refusals.get("unequal", 0))


def never_trained_text(refusals: Mapping[str, Any]) -> str:
    """One sentence on the suggestions that were not trained, for the terminal."""
    return (
        f"Never trained: {refused_by_prediction(refusals)} that the prediction refused, "
        f"{refusals.get('repeated', 0)} that had been trained."
    )
