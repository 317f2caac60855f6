"""The device that this process computes on, and the threads of its CPU."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nas.utils.gpu_presence import has_gpu

if TYPE_CHECKING:
    import torch


def default_device() -> str:
    """Name PyTorch's device for work that names none: `cuda` where there is a GPU, else `cpu`."""
    return "cuda" if gpu_count() else "cpu"


def gpu_count() -> int:
    """Count the GPUs that PyTorch can use; without a driver of one it is not imported."""
    if not has_gpu():
        return 0
    import torch

    return torch.cuda.device_count()


def processor() -> str:
    """Name the model of the CPU, as the system knows it."""
    try:
        with open("/proc/cpuinfo") as lines:
            models = [
                line.partition(":")[2].strip() for line in lines if line.startswith("model name")
            ]
    except OSError:
        models = []
    return models[0] if models else platform.machine()


def hardware(device: torch.device) -> dict[str, Any]:
    """Describe what this process computes on, as plain JSON.

    Returns:
        `device`, `cpu` or a GPU's name; `cpu`, the processor's model; `threads`, how many share a
        CPU's sums and so decide their order.
    """
    import torch

    return {
        "device": device_name(device),
        "cpu": processor(),
        "threads": torch.get_num_threads(),
    }


def device_name(device: torch.device) -> str:
    """Name a device as people know it: `cpu`, or the model of the GPU."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


@contextmanager
def num_threads(count: int | None) -> Iterator[None]:
    """Let PyTorch compute with `count` threads inside, and with as many as before afterwards; None
    changes nothing. The count decides in which order a CPU sums.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def tf32(allowed: bool | None, device: torch.device) -> Iterator[None]:
    """Allow or forbid TF32 in fp32 matrix products and convolutions on a GPU inside, as before
    afterwards; None changes nothing, and neither does a device that is no GPU.
    """
    if allowed is None or device.type != "cuda":
        yield
        return
    import torch

    backends: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn]
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = allowed
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value
