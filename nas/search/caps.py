"""Limits of a search beside memory: multiply-adds, parameters and latency."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from nas.config.spec import SearchSpec
from nas.profiling.flops import Cost
from nas.utils.formatting import si_text
from search_spaces.layout import Layout

if TYPE_CHECKING:
    from nas.profiling.latency import LatencyMeter

MS = 1000


class Caps:
    """What the layouts of a search may cost beside memory. What is known is filtered, not learned.

    Multiply-adds and parameters are counted. Latency is predicted by the sum of a layout's steps,
    which decides what may be suggested, and measured for what is about to be trained.

    Args:
        spec: the request.
        cost: counts a layout.
        image_size: height and width that latency is measured at, pixels.
    """

    def __init__(
        self, spec: SearchSpec, cost: Callable[[Layout], Cost], image_size: tuple[int, int]
    ) -> None:
        self.budget, self.cost, self.image_size = spec.budget, cost, image_size
        self.timed = self.budget.latency is not None or "latency" in spec.search.objectives

    def limits(self) -> list[str]:
        """Say each limit in words: `20ms on the cpu`."""
        asked, where = self.budget, f"on the {self.budget.latency_on}"
        named = (
            (asked.flops, "multiply-adds"),
            (asked.params, "parameters"),
            (asked.latency, where),
        )
        return [f"{limit} {what}" for limit, what in named if limit is not None]

    @cached_property
    def meter(self) -> LatencyMeter:
        """Measures latency.

        Raises:
            MissingDependency, SpecError: this machine cannot.
        """
        from nas.profiling.latency import LatencyMeter, latency_target  # ONNX, where it is asked

        return LatencyMeter(latency_target(self.budget.latency_on), self.image_size)

    def met(self, layout: Layout) -> bool:
        """Whether a layout is within all limits, by counts and predicted latency."""
        return not self.excess(layout)

    def excess(self, layout: Layout) -> str:
        """Say which limit a layout passes, as `has 3.1G multiply-adds (budget.flops is 2G)`; empty
        where it passes none.
        """
        limit = self.budget.latency
        if counted := self.counted_excess(layout):
            return counted
        if limit is not None and (taken_s := self.meter.predicted_s(layout)) > limit:
            return f"takes {MS * taken_s:.3g} ms (budget.latency is {limit})"
        return ""

    def counted_excess(self, layout: Layout) -> str:
        """Say which limit of those that are counted a layout passes; see `excess`."""
        asked = self.budget
        if asked.flops is None and asked.params is None:
            return ""
        cost = self.cost(layout)
        if asked.flops is not None and cost.flops > asked.flops:
            return f"has {si_text(cost.flops)} multiply-adds (budget.flops is {asked.flops})"
        if asked.params is not None and cost.params > asked.params:
            return f"has {si_text(cost.params)} parameters (budget.params is {asked.params})"
        return ""

    def confirmed(self, layout: Layout) -> bool:
        """Whether the latency of a layout is within its limit as measured, too."""
        limit = self.budget.latency
        return limit is None or bool(self.meter.measured_s(layout) <= limit)

    def figures(self, layout: Layout) -> dict[str, float]:
        """The latency of a layout as its trial has it, where the search looks at latency."""
        if not self.timed:
            return {}
        return {"latency_ms": round(MS * self.meter.measured_s(layout), 4)}

    def describe(self) -> dict[str, Any]:
        """What latency was measured on, as the study keeps it; empty where none is."""
        if not self.timed:
            return {}
        return {**self.meter.target.describe(), "image_size": list(self.image_size)}
