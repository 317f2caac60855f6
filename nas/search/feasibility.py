"""Whether a request leaves anything to train, found out before there is a study."""

from __future__ import annotations

from nas.errors import StudyError
from nas.search.budget import Budget
from nas.search.equalizer import Equalizer, PatternFit
from nas.search.layout_filter import LayoutFilter
from nas.utils.formatting import gib
from search_spaces.layout import Layout


def check_feasible(budget: Budget) -> list[PatternFit]:
    """Find out whether the space has layouts that meet the budget.

    Args:
        budget: the budget of the search, with its request and space.

    Returns:
        In mode `equalize` the patterns of which no layout uses the budget, each with the nearest
        layout; else nothing.

    Raises:
        StudyError: nothing in the space meets the budget, or a layout of `search.try` does not.
    """
    _check_tried(budget)
    _check_caps(budget)
    if budget.equalizer:
        return _check_patterns(budget, budget.equalizer)
    _check_smallest(budget)
    return []


def _check_tried(budget: Budget) -> None:
    layout_filter = LayoutFilter(budget, set)
    for text in budget.spec.search.try_first:
        if layout_filter.resolve(layout := Layout.parse(text)) != layout:
            needs = f"needs {gib(budget.predicted_bytes(layout))} GiB, {budget.describe()}"
            raise StudyError(f"search.try: {text} {budget.caps.excess(layout) or needs}")


def _check_caps(budget: Budget) -> None:
    """The shallowest layouts pass the limits beside memory, if any does. Where latency is looked
    at, this machine must be able to measure it.
    """
    budget.caps.describe()
    shallowest = list(budget.space.shallowest())
    if any(map(budget.caps.met, shallowest)):
        return
    nearest = min(shallowest, key=lambda layout: budget.cost(layout).flops)
    raise StudyError(
        f"no layout of space {budget.space.name!r} is within the limits beside memory: {nearest} "
        f"{budget.caps.excess(nearest)}"
    )


def _check_smallest(budget: Budget) -> None:
    peak_bytes = {layout: budget.predicted_bytes(layout) for layout in budget.space.shallowest()}
    smallest = min(peak_bytes, key=peak_bytes.__getitem__)
    if peak_bytes[smallest] > budget.limit_bytes:
        raise StudyError(
            f"no layout of space {budget.space.name!r} fits into {gib(budget.limit_bytes)} GiB: "
            f"the smallest is {smallest} with {gib(peak_bytes[smallest])} GiB; raise "
            "budget.memory, or lower recipe.image_size or recipe.images_per_gpu"
        )


def _check_patterns(budget: Budget, equalizer: Equalizer) -> list[PatternFit]:
    fits = equalizer.patterns()
    unsolved = [fit for fit in fits if not fit.solved]
    if len(unsolved) == len(fits):
        nearest = min(fits, key=lambda fit: abs(fit.peak_bytes - budget.limit_bytes))
        raise StudyError(
            f"no layout of space {budget.space.name!r} meets the budget: {budget.describe()}; the "
            f"nearest is {nearest.layout} with {gib(nearest.peak_bytes)} GiB; raise "
            "budget.tolerance, or set budget.vary to the other of depth and width"
        )
    return unsolved
