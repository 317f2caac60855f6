"""A candidate's share of a GPU: what it books, the limit it runs under, and whose fault it is when
memory runs out.
"""

from __future__ import annotations

import gc
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from nas.errors import CandidateError, OutOfMemory
from nas.profiling.memory import CONTEXT_BYTES
from nas.utils.formatting import GIB, gib

# The allocator reserves more than is allocated: 1.03 to 1.25 times as much in its replay, more for
# small candidates. cuDNN's workspaces, which nobody predicts, come on top.
RESERVED_SHARE, WORKSPACES_BYTES = 1.25, GIB // 2


def cap_bytes(budget_bytes: int) -> int:
    """What the allocator of one candidate may reserve in a search with this budget."""
    return round(budget_bytes * RESERVED_SHARE) + WORKSPACES_BYTES


def card_share_bytes(budget_bytes: int) -> int:
    """What one candidate takes of a card at most: its cap, and the CUDA context of its process."""
    return cap_bytes(budget_bytes) + CONTEXT_BYTES


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


@contextmanager
def limited_memory(device: torch.device, cap: int | None) -> Iterator[None]:
    """Let the allocator reserve at most `cap` bytes of a GPU; None, and any other device, is no
    limit.

    Raises:
        OutOfMemory: the code inside needed more than that.
        CandidateError: it ran out of memory below its cap, because others had taken the card's.
    """
    if device.type == "cuda" and cap is not None:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, cap / total), device)
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise _whose_fault(device, cap) from error


def _whose_fault(device: torch.device, cap: int | None) -> CandidateError:
    peak_bytes, reserved_bytes = (
        torch.cuda.max_memory_allocated(device),
        torch.cuda.memory_reserved(device),
    )
    free_bytes, _ = torch.cuda.mem_get_info(device)
    name = torch.cuda.get_device_name(device)
    if cap is not None and reserved_bytes + free_bytes < cap:
        return CandidateError(
            f"{name} was full: {gib(reserved_bytes)} GiB of the {gib(cap)} GiB that this "
            "candidate may reserve, and "
            f"{gib(free_bytes)} GiB free"
        )
    limit = f", where a candidate may reserve {gib(cap)} GiB" if cap is not None else ""
    return OutOfMemory(f"out of memory at {gib(peak_bytes)} GiB on {name}{limit}", peak_bytes)


def free_memory() -> None:
    """Give back what a finished candidate held, and begin to measure the next one's peak."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
