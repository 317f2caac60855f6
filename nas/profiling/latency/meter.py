"""Latency of layouts at one image size, remembered on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nas.models.backbones import HybridBackbone, backbone_dims, layout_graph
from nas.models.backbones.graph import Node
from nas.profiling.latency.targets import LatencyTarget
from nas.utils.disk_cache import DiskCache
from search_spaces.layout import Layout, Stage

LATENCIES = DiskCache("latencies", ("nas.export", "nas.models", "nas.profiling.latency"))


class LatencyMeter:
    """Measures how long backbones take for one image, on one target.

    Args:
        target: where.
        image_size: height and width, pixels.
    """

    def __init__(self, target: LatencyTarget, image_size: tuple[int, int]) -> None:
        self.target, self.image_size = target, image_size
        self._known: dict[str, float] = {}

    def measured_s(self, layout: Layout) -> float:
        """Measure the whole backbone of a layout, in seconds; what was measured before on the same
        device is not measured again.
        """
        shape = (3, *self.image_size)
        return self._remembered(
            str(layout), lambda: self.target.backbone_s(_backbone(layout), shape)
        )

    def predicted_s(self, layout: Layout) -> float:
        """Add up the steps of a layout's backbone, in seconds. Of each stage one and three blocks
        are measured by themselves, the first time that a layout has them; other depths lie on the
        line through both. Joins of dense backbones count for nothing.
        """
        steps = [node for node in layout_graph(layout) if node.kind in ("stem", "stage")]
        return sum(self._predicted_step_s(layout, node) for node in steps)

    def _predicted_step_s(self, layout: Layout, node: Node) -> float:
        more = layout.depths[node.stage] - 1 if node.kind == "stage" else 0
        one_s = self._step_s(_alone(layout, node, 1), node)
        if not more:
            return one_s
        # Two blocks more: of attention, one has its windows shifted.
        three_s = self._step_s(_alone(layout, node, 3), node)
        return one_s + max(0.0, three_s - one_s) * more / 2

    def _step_s(self, alone: Layout, node: Node) -> float:
        stride = 1 if node.kind == "stem" else 4 * 2 ** max(0, node.stage - 1)
        height, width = (-(-side // stride) for side in self.image_size)
        shape = (node.in_widths[0], height, width)
        return self._remembered(
            f"{alone} {node.name}", lambda: self.target.step_s(_backbone(alone), node, shape)
        )

    def _remembered(self, what: str, measure: Callable[[], float]) -> float:
        if what not in self._known:
            key = [what, list(self.image_size), self.target.describe()]
            kept = LATENCIES.get_or_make(key, lambda: {"seconds": measure()})
            self._known[what] = kept["seconds"]
        return self._known[what]


def _alone(layout: Layout, node: Node, depth: int) -> Layout:
    """The layout with `depth` blocks in a step's stage, and one convolutional block in every stage
    that does not decide about it.
    """
    stages = tuple(
        replace(stage, depth=depth)
        if node.kind == "stage" and index == node.stage
        else Stage("C", 1, stage.width)
        for index, stage in enumerate(layout.stages)
    )
    return replace(layout, stages=stages)


def _backbone(layout: Layout) -> HybridBackbone:
    return HybridBackbone(**backbone_dims(layout))  # type: ignore[arg-type]
