"""Predictions of memory; what was predicted before comes from the disk, without PyTorch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import lru_cache

from nas.config.choices import Checkpointing, OptimizerName, Precision
from nas.config.sections import DetectorSpec
from nas.profiling import SOURCES
from nas.reports import MemoryEstimate
from nas.utils.disk_cache import DiskCache
from search_spaces.layout import Layout

ESTIMATES = DiskCache("memory-estimates", SOURCES)


@dataclass(frozen=True)
class Training:
    """The part of a recipe, and of its data, that decides about memory.

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
        average: a moving average of the weights is kept beside them.
        drop_path: branches of the backbone are left out of some images.
        frozen_stages: stages, with the stem, that are not trained.
        hopper: count cuBLAS's workspaces of NVIDIA's Hopper generation and later ones.
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
    average: bool = False
    drop_path: bool = False
    frozen_stages: int = 0
    hopper: bool = False
    cuda: bool = True

    @property
    def batch_bytes(self) -> int:
        """What the images take as one batch."""
        return math.prod(self.batch_shape) * 4


@lru_cache(maxsize=4096)
def predict_memory(
    layout: Layout, detector: DetectorSpec, num_classes: int, training: Training
) -> MemoryEstimate:
    """Predict the peak memory of one training step.

    `peak_bytes` is what `torch.cuda.max_memory_allocated` would say. Whatever data decides counts
    with its configured limit (`Detector.worst_case_losses`). Not counted are cuDNN's workspaces,
    which come and go.

    Args:
        layout: of the backbone.
        detector: around it.
        num_classes: categories, without the background.
        training: the rest of what decides about memory.
    """
    key = [str(layout), detector.model_dump(), num_classes, asdict(training)]
    fields = ESTIMATES.get_or_make(
        key, lambda: asdict(_estimated(layout, detector, num_classes, training))
    )
    return MemoryEstimate(**fields)


def _estimated(
    layout: Layout, detector: DetectorSpec, num_classes: int, training: Training
) -> MemoryEstimate:
    from nas.profiling.memory.estimator import estimate_memory

    return estimate_memory(layout, detector, num_classes, training)


def predict_reserved_bytes(
    layout: Layout, detector: DetectorSpec, num_classes: int, training: Training
) -> int:
    """Predict what `torch.cuda.max_memory_reserved` would say after two training steps of one
    shape: what the caching allocator takes from the card for the peak of `predict_memory`, whose
    arguments these are.

    The allocator is replayed block by block, which takes as long as the rest of a prediction.
    """
    from nas.profiling.memory.estimator import estimate_reserved_bytes

    return estimate_reserved_bytes(layout, detector, num_classes, training)
