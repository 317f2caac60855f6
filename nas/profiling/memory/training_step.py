"""One training step of a layout's detector, put together from the traces of its segments."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from nas.config.sections import DetectorSpec
from nas.models.backbones import layout_graph
from nas.models.backbones.graph import IMAGES
from nas.models.detectors import DETECTORS
from nas.profiling import SOURCES
from nas.profiling.memory.head import head_segment
from nas.profiling.memory.prediction import Training
from nas.profiling.memory.step_simulator import StepSimulator, Value
from nas.profiling.memory.tracer import SegmentTrace, TensorSpec, channels_last, contiguous, trace
from nas.profiling.segments import Segment, backbone_segments, frozen, neck_segment
from nas.utils.disk_cache import DiskCache
from search_spaces.layout import Layout

TRACES = DiskCache("memory-traces", SOURCES)


def simulate_step(
    layout: Layout, detector: DetectorSpec, num_classes: int, training: Training
) -> tuple[StepSimulator, list[SegmentTrace]]:
    """Run the segments of a layout's detector forward and backward, on meta tensors.

    Args:
        layout: of the backbone.
        detector: around it.
        num_classes: categories, without the background.
        training: the rest of what decides about memory.

    Returns:
        The simulator with its events, and the trace of each segment in the order in which they ran.
    """
    step = TracedStep(training)
    shape = training.batch_shape
    stride = channels_last(shape) if training.channels_last else contiguous(shape)
    # A frozen stem does not hold the batch, which goes with the forward pass then.
    goes = training.batch_bytes if training.frozen_stages else None
    images = step.simulator.add_input(TensorSpec(shape, stride, trained=False), goes)
    maps = step.backbone(layout, images, first_map=DETECTORS[detector.name].neck["first"])
    levels = step.run(neck_segment(layout.widths, detector), maps)
    step.simulator.drop(maps)
    step.run(head_segment(detector, num_classes, shape, training.boxes_per_image), levels)
    consumed = step.traces[-1].consumed
    step.simulator.drop([level for slot, level in enumerate(levels) if slot not in consumed])
    if training.frozen_stages:
        step.simulator.drop([images])
    step.simulator.backward()
    return step.simulator, step.traces


class TracedStep:
    """One training step as it is put together.

    Args:
        training: what decides about memory beside the network.

    Attributes:
        traces: of each segment that was run.
        simulator: with the events so far.
    """

    def __init__(self, training: Training) -> None:
        self.training, self.traces = training, list[SegmentTrace]()
        self.simulator = StepSimulator(accumulates=training.accumulates)

    def run(self, segment: Segment, inputs: Sequence[Value]) -> list[Value]:
        """Run a segment forward."""
        training = self.training
        specs = tuple(value.spec for value in inputs)
        autocast = training.precision == "bf16"
        traced = _trace(segment, specs, training.checkpointing, training.cuda, autocast)
        self.traces.append(traced)
        return self.simulator.forward(traced, segment.part, inputs)

    def backbone(self, layout: Layout, images: Value, *, first_map: int) -> list[Value]:
        """Run the backbone as its graph says; the maps from `first_map` on, which a detector
        uses.
        """
        values, maps = {IMAGES: images}, []
        for node in layout_graph(layout):
            trained = node.kind != "norm" or node.stage >= first_map
            dropped = self.training.drop_path
            segments = backbone_segments(layout, node, trained=trained, drop_path=dropped)
            if node.stage < self.training.frozen_stages:
                segments = [frozen(segment) for segment in segments]
            inputs, released = (
                [values[name] for name in names] for names in (node.inputs, node.releases)
            )
            values[node.name] = self._run_node(segments, inputs, released)
            if node.kind == "norm":
                maps.append(values[node.name])
        for stage, unused in zip(layout.stages, maps[:first_map], strict=False):
            (self.simulator.discard if stage.kind == "T" else self.simulator.drop)([unused])
        return maps[first_map:]

    def _run_node(
        self, segments: Sequence[Segment], inputs: list[Value], released: list[Value]
    ) -> Value:
        """Run the segments of a step one after the other; none is the identity."""
        results = inputs
        if not segments:
            self.simulator.keep(inputs[0])
            self.simulator.drop(released)
        for number, segment in enumerate(segments):
            inputs, results = results, self.run(segment, results)
            # What one segment hands to the next, nobody else has.
            self.simulator.drop(inputs if number else released)
        return results[0]


@lru_cache(maxsize=4096)
def _trace(
    segment: Segment, inputs: tuple[TensorSpec, ...], checkpointing: str, cuda: bool, autocast: bool
) -> SegmentTrace:
    key = [segment.key, [vars(spec) for spec in inputs], checkpointing, cuda, autocast]
    how: dict[str, Any] = {"checkpointing": checkpointing, "cuda": cuda, "autocast": autocast}
    return SegmentTrace.from_dict(
        TRACES.get_or_make(key, lambda: trace(segment.build, inputs, **how).to_dict())
    )
