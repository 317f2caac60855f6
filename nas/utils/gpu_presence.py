"""What GPUs this machine has, without importing PyTorch."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

from nas.utils.formatting import MIB

HOPPER = 9.0  # compute capability of NVIDIA's generation of 2022
# Of NVIDIA, also in a container, on a Jetson and under WSL; of AMD.
DRIVERS = (
    "/proc/driver/nvidia/version",
    "/dev/nvidiactl",
    "/dev/nvhost-ctrl-gpu",
    "/dev/dxg",
    "/dev/kfd",
)


def has_gpu() -> bool:
    """Whether the driver of a GPU is loaded here."""
    return any(Path(driver).exists() for driver in DRIVERS)


def smallest_card_bytes() -> int | None:
    """Find the memory of this machine's smallest GPU, None where that is not known."""
    try:
        return min(int(line) for line in _figures("memory.total")) * MIB
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


@cache
def has_hopper() -> bool:
    """Whether a GPU of this machine is of NVIDIA's Hopper generation or a later one."""
    if not has_gpu():
        return False
    try:
        return max(float(line) for line in _figures("compute_cap")) >= HOPPER
    except (OSError, subprocess.SubprocessError, ValueError):
        return False


def _figures(name: str) -> list[str]:
    """Ask the driver's own tool for a figure of each GPU: PyTorch would open a CUDA context."""
    command = ["nvidia-smi", f"--query-gpu={name}", "--format=csv,noheader,nounits"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return answer.stdout.split()
