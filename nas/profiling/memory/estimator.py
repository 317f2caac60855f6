"""The prediction itself: from one training step of a layout, segment by segment, to an estimate by
part.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from nas.config.sections import DetectorSpec
from nas.profiling.memory.allocator import CachingAllocator, rounded_bytes
from nas.profiling.memory.prediction import Training
from nas.profiling.memory.recorder import RELEASED
from nas.profiling.memory.step_simulator import GRADIENTS, TRANSIENTS, StepSimulator
from nas.profiling.memory.tracer import SegmentTrace
from nas.profiling.memory.training_step import simulate_step
from nas.reports import MemoryEstimate
from search_spaces.layout import Layout

# What cuBLAS takes from the allocator for each of the two threads that run forward and backward
# passes: PyTorch's default CUBLAS_WORKSPACE_CONFIG is :4096:2:16:8, 8 MiB + 128 KiB; from Hopper on
# :4096:8 (aten/src/ATen/cuda/CublasHandlePool.cpp). cuDNN's workspaces come and go and are left
# out: docs/memory-budget.md.
WORKSPACE_BYTES, HOPPER_WORKSPACE_BYTES = 8 * 2**20 + 128 * 2**10, 32 * 2**20
_OTHER_PARTS = (
    "parameters",
    "average",
    "optimizer",
    "inputs",
    "workspace",
    GRADIENTS,
    TRANSIENTS,
    "rounding",
)


def estimate_memory(
    layout: Layout, detector: DetectorSpec, num_classes: int, training: Training
) -> MemoryEstimate:
    """Predict what `nas.profiling.memory.predict_memory` gives, and takes from its cache."""
    step, traces = simulate_step(layout, detector, num_classes, training)
    base = _constant(detector, training, traces)
    peak, moment = highest_moment(step, base)
    gradients = [size for trace in traces for size in trace.parameters]
    update = _sums({**base, GRADIENTS: gradients})
    if update.total() > peak.total():
        peak, moment = update, "update"
    activations = {part: size for part, size in peak.items() if part not in _OTHER_PARTS}
    return MemoryEstimate(
        peak_bytes=peak.total(),
        moment=moment,
        activations_bytes=activations,
        **{f"{part}_bytes": peak[part] for part in _OTHER_PARTS},
    )


def estimate_reserved_bytes(
    layout: Layout, detector: DetectorSpec, num_classes: int, training: Training
) -> int:
    """Predict what `nas.profiling.memory.predict_reserved_bytes` gives."""
    step, traces = simulate_step(layout, detector, num_classes, training)
    return _reserved_bytes(step, _constant(detector, training, traces))


def _constant(
    detector: DetectorSpec, training: Training, traces: Sequence[SegmentTrace]
) -> dict[str, list[int]]:
    """Bytes of each tensor that is there during the whole step, by part of the estimate."""
    parameters = [size for trace in traces for size in trace.parameters]
    weights = parameters + [size for trace in traces for size in trace.fixed]
    images, *plane = training.batch_shape
    image_bytes = math.prod(plane) * 4
    mask_bytes = (
        training.boxes_per_image * math.prod(plane[1:]) if detector.learns_masks else 0
    )  # 8 bits a pixel
    return {
        "parameters": weights,
        "average": weights if training.average else [],
        "optimizer": _states(parameters, training.optimizer),
        "inputs": [image_bytes, mask_bytes] * images  # as loaded, and as one batch
        + ([] if training.frozen_stages else [training.batch_bytes]),
        "workspace": _workspaces(training),
        GRADIENTS: parameters if training.accumulates else [],
    }


def highest_moment(
    step: StepSimulator, base: Mapping[str, Sequence[int]]
) -> tuple[Counter[str], str]:
    """Find the moment of a step at which most is allocated.

    Args:
        step: after its backward pass.
        base: bytes of each tensor that is there all along, by part of the estimate.

    Returns:
        Bytes by part, with what rounding to the allocator's blocks adds as `rounding`; and
        `forward` or `backward`, in which pass it is.
    """
    known: dict[int, int] = {}
    live = highest = 0
    moment = 0  # the number of events that have happened then
    for count, (storage, size, _) in enumerate(step.events, start=1):
        if size == RELEASED:
            live -= known.pop(storage)
            continue
        known[storage] = taken = rounded_bytes(size)
        live += taken
        if live > highest:
            highest, moment = live, count
    parts = _sums(base)
    for size, part in _alive(step, moment):
        parts[part] += size
        parts["rounding"] += rounded_bytes(size) - size
    return parts, "forward" if moment <= step.backward_from else "backward"


def _alive(step: StepSimulator, moment: int) -> Iterable[tuple[int, str]]:
    """Bytes and part of what the first `moment` events have left."""
    alive: dict[int, tuple[int, str]] = {}
    for storage, size, part in step.events[:moment]:
        if size == RELEASED:
            del alive[storage]
        else:
            alive[storage] = size, part
    return alive.values()


def _reserved_bytes(step: StepSimulator, base: Mapping[str, Sequence[int]]) -> int:
    """What the allocator reserves after two steps: the optimizer's states come into being at the
    end of the first.
    """
    allocator, number = CachingAllocator(), itertools.count(-1, -1)
    for part in ("parameters", "average", "inputs", "workspace"):
        for size in base[part]:
            allocator.allocate(next(number), size)
    for first in (True, False):
        gradients = [next(number) for _ in base[GRADIENTS]]
        for storage, size in zip(gradients, base[GRADIENTS], strict=True):
            allocator.allocate(storage, size)
        alive = set(gradients)
        for storage, size, _ in step.events:
            if size == RELEASED:
                allocator.release(storage)
                alive.discard(storage)
            else:
                allocator.allocate(storage, size)
                alive.add(storage)
        if first:
            for size in base["optimizer"]:
                allocator.allocate(next(number), size)
        for storage in alive:
            allocator.release(storage)
    return allocator.reserved_bytes


def _workspaces(training: Training) -> list[int]:
    """Bytes of cuBLAS's buffers."""
    if not training.cuda:
        return []
    return [HOPPER_WORKSPACE_BYTES if training.hopper else WORKSPACE_BYTES] * 2


def _states(parameters: list[int], optimizer: str) -> list[int]:
    """Bytes of what the optimizer keeps: AdamW two moments and a step counter for each parameter,
    SGD its momentum.
    """
    return parameters if optimizer == "sgd" else [*parameters, *parameters, *[4] * len(parameters)]


def _sums(base: Mapping[str, Sequence[int]]) -> Counter[str]:
    """The parts, with what rounding adds to all of them as a part of its own."""
    parts = Counter({part: sum(sizes) for part, sizes in base.items()})
    parts["rounding"] = sum(rounded_bytes(size) - size for sizes in base.values() for size in sizes)
    return parts
