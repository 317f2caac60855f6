"""A candidate's share of a GPU: what it books, the limit it runs under, and whose fault it is when
memory runs out.
"""

from __future__ import annotations

import platform
from typing import Any

import torch


def hardware(device: torch.device) -> dict[str, Any]:
    """What this process computes on: `cpu` or a GPU's name, the processor, and the threads that
    share a CPU's sums.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    try:
        with open("/proc/cpuinfo") as lines:
            models = [
                line.partition(":")[2].strip() for line in lines if line.startswith("model name")
            ]
    except OSError:
        models = []
    return {
        "device": name,
        "cpu": models[0] if models else platform.machine(),
        "threads": torch.get_num_threads(),
    }


def device_name(device: torch.device) -> str:
    """As people know it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
