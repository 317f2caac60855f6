"""The limit that a candidate runs under on a GPU, and whose fault it is when memory runs out."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nas.errors import CandidateError, OutOfMemory
from nas.utils.formatting import gib


@contextmanager
def limited_memory(device: torch.device, cap: int | None) -> Iterator[None]:
    """Limit what the allocator reserves of a GPU inside, and say whose fault it is when memory runs
    out.

    Args:
        device: the GPU; any other device has no limit.
        cap: bytes; None is no limit.

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


def peak_allocated_bytes(device: torch.device) -> int | None:
    """The most that this process had allocated of a GPU at one time; None on the CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def free_memory() -> None:
    """Give back what a finished candidate held, and begin to measure the next one's peak."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
