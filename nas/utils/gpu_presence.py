"""Whether this machine has a GPU, without importing PyTorch."""

from __future__ import annotations

from pathlib import Path

DRIVERS = ("/proc/driver/nvidia/version", "/dev/kfd")  # of NVIDIA, of AMD


def has_gpu() -> bool:
    """Whether the driver of a GPU is loaded here."""
    return any(Path(driver).exists() for driver in DRIVERS)
