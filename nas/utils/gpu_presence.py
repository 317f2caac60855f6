"""What GPUs this machine has, without importing PyTorch."""

from __future__ import annotations

import subprocess
from pathlib import Path

from nas.utils.formatting import MIB

DRIVERS = ("/proc/driver/nvidia/version", "/dev/kfd")  # of NVIDIA, of AMD


def has_gpu() -> bool:
    """Whether the driver of a GPU is loaded here."""
    return any(Path(driver).exists() for driver in DRIVERS)


def smallest_card_bytes() -> int | None:
    """Find the memory of this machine's smallest GPU, None where that is not known. The driver's
    own tool is asked: PyTorch would open a CUDA context to answer.
    """
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=30, check=True
        ).stdout
        return min(int(line) for line in answer.split()) * MIB
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
