"""What a real training step takes: on a GPU by PyTorch's own counters, on the CPU counted at
dispatch level.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nas.config.recipe import Recipe
from nas.config.sections import DetectorSpec
from nas.data.dataset import Batch, Target
from nas.models.detectors import Detector, build_detector
from nas.profiling.memory.allocator import rounded_bytes
from nas.profiling.memory.prediction import Training
from nas.profiling.memory.recorder import RELEASED, Recorder
from nas.profiling.segments import ANY_SHARE
from nas.training.loop import train_epoch
from nas.training.network import prepare_network
from nas.training.optimizer import make_optimizer
from nas.training.weight_average import WeightAverage
from nas.utils.distributed import World
from search_spaces.layout import Layout

STEPS = 2  # the optimizer's states come into being at the end of the first
EVALUATED, WARM_UP = 20, 5  # images


@dataclass(frozen=True)
class Measured:
    """What one training step took.

    Args:
        device: `cpu` or the name of the GPU.
        peak_bytes: the most that was allocated at one time.
        reserved_bytes: what the allocator took of the GPU; None on the CPU.
        step_s: seconds of the step.
        fps: images a second in evaluation, one at a time; None on the CPU.
    """

    device: str
    peak_bytes: int
    reserved_bytes: int | None
    step_s: float
    fps: float | None


def measure_memory(
    layout: Layout,
    detector: DetectorSpec,
    num_classes: int,
    training: Training,
    device: torch.device,
) -> Measured:
    """Train on random images and boxes, and measure the second step.

    Args:
        layout: of the backbone.
        detector: around it.
        num_classes: categories, without the background.
        training: shapes of the batch, and how it is trained.
        device: where.

    Raises:
        torch.OutOfMemoryError: the GPU has no room for it.
    """
    torch.manual_seed(0)
    recipe = _recipe(training)
    network = build_detector(layout, detector, num_classes)
    network = prepare_network(network, recipe, layout.norm, device, World())
    optimizer = make_optimizer(network, recipe)
    batch = _random_batch(detector, num_classes, training).to(device)
    average = WeightAverage(network, 0.9) if training.average else None

    def step() -> None:
        accumulate = 2 if training.accumulates else 1
        train_epoch(
            network,
            [batch] * accumulate,
            optimizer,
            lrs=[recipe.lr],
            accumulate=accumulate,
            clip_norm=None,
            precision=training.precision,
            device=device,
        )
        if average:
            average.update()

    if device.type == "cuda":
        peak_bytes, reserved_bytes, step_s = _step_on_gpu(step, device)
        fps = _fps(network, batch.images[0], device)
        name = torch.cuda.get_device_name(device)
        return Measured(name, peak_bytes, reserved_bytes, step_s, fps)
    masks = [target["masks"] for target in batch.targets if detector.learns_masks]
    averaged = average.values.values() if average else ()
    there = [*network.parameters(), *network.buffers(), *averaged, *batch.images, *masks]
    peak_bytes, step_s = _step_on_cpu(step, there)
    return Measured("cpu", peak_bytes, None, step_s, None)


def _recipe(training: Training) -> Recipe:
    images, _, height, width = training.batch_shape
    weights = "unread.pt" if training.frozen_stages else None  # which there must be a name of
    return Recipe(
        weights=weights,
        frozen_stages=training.frozen_stages,
        epochs=1,
        image_size=height,
        max_size=max(height, width),
        batch=images,
        lr=1e-5,
        optimizer=training.optimizer,
        checkpointing=training.checkpointing,
        channels_last=training.channels_last,
        drop_path=ANY_SHARE if training.drop_path else 0.0,
    )


def _random_batch(detector: DetectorSpec, num_classes: int, training: Training) -> Batch:
    images, _, height, width = training.batch_shape
    masks, boxes = detector.learns_masks, training.boxes_per_image
    targets = [random_target(boxes, num_classes, height, width, masks=masks) for _ in range(images)]
    return Batch([torch.rand(3, height, width) for _ in range(images)], targets)


def _step_on_gpu(step: Callable[[], None], device: torch.device) -> tuple[int, int, float]:
    """Bytes at the peak of the last of `STEPS` steps, bytes reserved, and its seconds."""
    for _ in range(STEPS):
        torch.cuda.reset_peak_memory_stats(device)
        torch.cuda.synchronize(device)
        started = time.perf_counter()
        step()
    step_s = time.perf_counter() - started
    return (
        torch.cuda.max_memory_allocated(device),
        torch.cuda.max_memory_reserved(device),
        step_s,
    )


def _step_on_cpu(step: Callable[[], None], there: Sequence[Tensor]) -> tuple[int, float]:
    """Bytes at the peak of `STEPS` steps, beside the tensors that are there before, and the seconds
    of the last one.
    """
    recorder = Recorder()
    for tensor in there:
        recorder.register(tensor)
    for _ in range(STEPS):
        started = time.perf_counter()
        with recorder:
            step()
    step_s = time.perf_counter() - started
    return highest_bytes(recorder, sum(rounded_bytes(tensor.nbytes) for tensor in there)), step_s


def highest_bytes(recorder: Recorder, live_bytes: int) -> int:
    """Bytes at the peak of what was recorded, as the allocator rounds them.

    Args:
        recorder: after the run.
        live_bytes: what was there before.
    """
    sizes: dict[int, int] = {}
    highest = live_bytes
    for slot, size in recorder.events:
        if size == RELEASED:
            live_bytes -= sizes.pop(slot, 0)
        else:
            sizes[slot] = rounded_bytes(size)
            live_bytes += sizes[slot]
            highest = max(highest, live_bytes)
    return highest


def random_target(
    boxes: int, num_classes: int, height: int, width: int, *, masks: bool = False
) -> Target:
    """Make boxes of all sizes within an image.

    Args:
        boxes: how many.
        num_classes: labels are 1 to this.
        height, width: of the image, pixels.
        masks: add a mask of the image's size to each box.
    """
    sides = torch.tensor([width, height])
    corner, size = torch.rand(boxes, 2) * sides * 0.6, torch.rand(boxes, 2) * sides * 0.35 + 8
    labels = torch.randint(1, num_classes + 1, (boxes,))
    target = {
        "boxes": torch.cat([corner, corner + size], dim=1),
        "labels": labels,
        "image_id": torch.tensor(0),
    }
    return target | (
        {"masks": torch.randint(2, (boxes, height, width), dtype=torch.uint8)} if masks else {}
    )


@torch.no_grad()
def _fps(network: Detector, image: Tensor, device: torch.device) -> float:
    network.eval()
    for index in range(WARM_UP + EVALUATED):
        if index == WARM_UP:
            torch.cuda.synchronize(device)
            started = time.perf_counter()
        network([image])
    torch.cuda.synchronize(device)
    return EVALUATED / (time.perf_counter() - started)
