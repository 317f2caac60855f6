"""The prediction itself: one training step of a layout, from the tapes of its pieces to an estimate
by part.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from nas.config.choices import Checkpointing, OptimizerName, Precision
from nas.config.sections import DetectorSpec
from nas.models.detectors import DETECTORS
from nas.profiling.memory.allocator import CachingAllocator, rounded_bytes
from nas.profiling.memory.recorder import RELEASED
from nas.profiling.memory.segments import (
    Segment,
    head_unit,
    join_unit,
    neck_unit,
    norm_unit,
    stage_units,
    stem_unit,
)
from nas.profiling.memory.step_simulator import GRADIENTS, TRANSIENTS, StepSimulator, Value
from nas.profiling.memory.tracer import SegmentTrace, TensorSpec, channels_last, contiguous, trace
from nas.reports import MemoryEstimate
from nas.utils.disk_cache import cached
from search_spaces.layout import Layout

# cuBLAS takes 8 MiB + 128 KiB from the allocator for each of the threads that run forward and
# backward passes (PyTorch's default CUBLAS_WORKSPACE_CONFIG, :4096:2:16:8); 32 MiB each on Hopper.
# cuDNN's workspaces come and go and are left out.
WORKSPACE_BYTES = 8 * 2**20 + 128 * 2**10
CONTEXT_BYTES = int(
    0.8 * 10**9
)  # CUDA context and loaded kernels, outside PyTorch's counters: 0.5 to 0.8 GB by card
_OTHER_PARTS = ("parameters", "optimizer", "inputs", "workspace", GRADIENTS, TRANSIENTS, "rounding")


@dataclass(frozen=True)
class Training:
    """What of a recipe decides about memory.

    Args:
        batch_shape: [B, 3, H, W] of the largest batch, H and W multiples of 32.
        boxes_per_image: targets of one image; of a detector that learns masks, each has one as
            large as the image.
        precision: `fp32`, or `bf16` for autocast.
        optimizer: `adamw` or `sgd`.
        checkpointing: `none`, `light` or `full`: what runs again in the backward pass instead of
            being kept.
        channels_last: convolutions have their maps channels last.
        accumulates: several batches make one step, so that gradients are there during the forward
            pass.
        cuda: count CUDA's kernels and workspaces; else the CPU's kernels, to compare with a run
            there.
    """

    batch_shape: tuple[int, int, int, int]
    boxes_per_image: int = 100
    precision: Precision = "fp32"
    optimizer: OptimizerName = "adamw"
    checkpointing: Checkpointing = "none"
    channels_last: bool = False
    accumulates: bool = False
    cuda: bool = True


@lru_cache(maxsize=4096)
def predict_memory(
    layout: Layout, detector: DetectorSpec, num_classes: int, training: Training
) -> MemoryEstimate:
    """Predict the peak of one training step.

    `peak_bytes` is what `torch.cuda.max_memory_allocated` would say, `reserved_bytes` what
    `max_memory_reserved` would. Whatever data decides counts with its configured limit: see
    `nas.profiling.memory.loss_bounds`. What a GPU adds and nobody
    counts: cuDNN's workspaces, which come and go.
    """
    key = [str(layout), detector.model_dump(), num_classes, asdict(training)]
    found = cached(
        "estimate", key, lambda: asdict(_predict(layout, detector, num_classes, training))
    )
    return MemoryEstimate(**found)


def _predict(
    layout: Layout, detector: DetectorSpec, num_classes: int, training: Training
) -> MemoryEstimate:
    chain, tapes = _step(layout, detector, num_classes, training)
    parameters = [size for tape in tapes for size in tape.parameters]
    images, *plane = training.batch_shape
    image_bytes = math.prod(plane) * 4
    mask_bytes = (
        training.boxes_per_image * math.prod(plane[1:]) if detector.learns_masks else 0
    )  # 8 bits a pixel
    base = {
        "parameters": parameters + [size for tape in tapes for size in tape.fixed],
        "optimizer": _states(parameters, training.optimizer),
        "inputs": [image_bytes, mask_bytes] * images
        + [image_bytes * images],  # as loaded, and as one batch
        "workspace": [WORKSPACE_BYTES] * (2 if training.cuda else 0),
        GRADIENTS: parameters if training.accumulates else [],
    }
    peak, moment = _peak(chain, base)
    update = _sums({**base, GRADIENTS: parameters})
    if update.total() > peak.total():
        peak, moment = update, "update"
    activations = {part: size for part, size in peak.items() if part not in _OTHER_PARTS}
    return MemoryEstimate(
        peak_bytes=peak.total(),
        reserved_bytes=_reserved(chain, base),
        moment=moment,
        activations_bytes=activations,
        **{f"{part}_bytes": peak[part] for part in _OTHER_PARTS},
    )


def _step(
    layout: Layout, detector: DetectorSpec, num_classes: int, training: Training
) -> tuple[StepSimulator, list[SegmentTrace]]:
    """Run the pieces of a layout, forward and backward."""
    chain, tapes = StepSimulator(accumulates=training.accumulates), []

    def run(unit: Segment, inputs: Sequence[Value]) -> list[Value]:
        tape = _tape(
            unit,
            tuple(value.spec for value in inputs),
            training.checkpointing,
            training.cuda,
            training.precision == "bf16",
        )
        tapes.append(tape)
        return chain.forward(tape, unit.part, inputs)

    shape, first = training.batch_shape, DETECTORS[detector.name].neck["first"]
    stride = channels_last(shape) if training.channels_last else contiguous(shape)
    images = chain.given(TensorSpec(shape, stride, trained=False))
    [x] = run(stem_unit(layout), [images])
    maps: list[Value] = []
    before: Value | None = None  # what a dense layout's stage was given
    for index, stage in enumerate(layout.stages):
        for unit in stage_units(layout, index):
            [y] = run(unit, [x])
            chain.drop([x])
            x = y
        if stage.kind == "T":
            maps += run(norm_unit(layout, index, frozen=index < first), [x])
        else:
            chain.keep(x)
            maps.append(x)
        if layout.dense and index < len(layout.stages) - 1:
            if before:
                [joined] = run(join_unit(index), [x, before])
                chain.drop([x, before])
                x = joined
            before = x
            chain.keep(x)
    chain.drop([x, *([before] if before else [])])
    for index, unused in enumerate(maps[:first]):
        (chain.discard if layout.stages[index].kind == "T" else chain.drop)([unused])
    levels = run(neck_unit(layout, detector), maps[first:])
    chain.drop(maps[first:])
    run(head_unit(detector, num_classes, shape, training.boxes_per_image), levels)
    chain.drop(levels)
    chain.backward()
    return chain, tapes


@lru_cache(maxsize=4096)
def _tape(
    unit: Segment, inputs: tuple[TensorSpec, ...], checkpointing: str, cuda: bool, autocast: bool
) -> SegmentTrace:
    key = [unit.key, [asdict(spec) for spec in inputs], checkpointing, cuda, autocast]
    how: dict[str, Any] = {"checkpointing": checkpointing, "cuda": cuda, "autocast": autocast}
    return SegmentTrace.from_dict(
        cached("tape", key, lambda: asdict(trace(unit.build, inputs, **how)))
    )


def _peak(chain: StepSimulator, base: Mapping[str, Sequence[int]]) -> tuple[Counter[str], str]:
    """The parts of the highest moment, and whether it is in the forward or the backward pass."""
    parts = _sums(base)
    live, peak = parts.total(), parts.copy()
    highest, moment = live, "forward"
    known: dict[int, tuple[int, str]] = {}
    for position, (storage, size, part) in enumerate(chain.events):
        if size == RELEASED:
            size, part = known.pop(storage)
            sign = -1
        else:
            known[storage] = (size, part)
            sign = 1
        taken = rounded_bytes(size)
        parts[part] += sign * size
        parts["rounding"] += sign * (taken - size)
        live += sign * taken
        if live > highest:
            highest, peak = live, parts.copy()
            moment = "forward" if position < chain.backward_from else "backward"
    return peak, moment


def _reserved(chain: StepSimulator, base: Mapping[str, Sequence[int]]) -> int:
    """What the allocator reserves after two steps: the optimizer's states come into being at the
    end of the first.
    """
    allocator, number = CachingAllocator(), itertools.count(-1, -1)
    for part in ("parameters", "inputs", "workspace"):
        for size in base[part]:
            allocator.allocate(next(number), size)
    for step in range(2):
        gradients = [next(number) for _ in base[GRADIENTS]]
        for storage, size in zip(gradients, base[GRADIENTS], strict=True):
            allocator.allocate(storage, size)
        alive = set(gradients)
        for storage, size, _ in chain.events:
            if size == RELEASED:
                allocator.release(storage)
                alive.discard(storage)
            else:
                allocator.allocate(storage, size)
                alive.add(storage)
        if step == 0:
            for size in base["optimizer"]:
                allocator.allocate(next(number), size)
        for storage in alive:
            allocator.release(storage)
    return allocator.reserved_bytes


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
