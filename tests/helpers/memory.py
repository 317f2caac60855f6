"""Predicted memory of a training step beside that of a real one."""

from __future__ import annotations

import torch

from nas.config.sections import DetectorSpec
from nas.profiling.memory import Training, predict_memory
from nas.profiling.memory.measurement import measure_memory
from search_spaces.layout import Layout

TINY = {"channels": 64, "hidden": 256, "proposals": 50}


def predicted_and_counted(layout: str, spec: DetectorSpec, training: Training) -> tuple[int, int]:
    """The prediction, and the count of a real step on the CPU."""
    parsed = Layout.parse(layout)
    predicted = predict_memory(parsed, spec, 3, training)
    return predicted.peak_bytes, measure_memory(
        parsed, spec, 3, training, torch.device("cpu")
    ).peak_bytes
