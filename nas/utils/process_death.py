"""What ended a process that nobody had told to end, in words."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from nas.utils.formatting import GIB

NO_MEMORY = "probably out of memory"
LIKELY = {
    signal.SIGKILL: NO_MEMORY,
    signal.SIGSEGV: "a crash in compiled code",
    signal.SIGABRT: "a check in compiled code failed",
    signal.SIGBUS: "probably too little shared memory, or a file that was cut",
    signal.SIGILL: "this processor lacks an instruction",
    signal.SIGFPE: "a crash in compiled code",
    signal.SIGTERM: "sent from outside",
    signal.SIGINT: "sent from outside",
}


def signal_text(number: int) -> str:
    """Name a signal that ended a process, with its likely cause and, where that is memory, what
    this machine has free now: `signal 9 (SIGKILL), probably out of memory; this machine has ...`.
    """
    try:
        known = signal.Signals(number)
    except ValueError:
        return f"signal {number}"
    text = f"signal {number} ({known.name})"
    likely = LIKELY.get(known)
    if likely == NO_MEMORY:
        likely = memory_text()
    return f"{text}, {likely}" if likely else text


def memory_text() -> str:
    """Say that memory was probably used up, with what this machine has free now."""
    free = free_memory_text()
    return f"{NO_MEMORY}; this machine has {free} free by now" if free else NO_MEMORY


def free_memory_text() -> str:
    """Main memory of this machine that is free, of all it has: `3.1 of 15.6 GiB`; empty where the
    system does not say.
    """
    with suppress(OSError, ValueError, KeyError):
        page_bytes = os.sysconf("SC_PAGE_SIZE")
        total_bytes = os.sysconf("SC_PHYS_PAGES") * page_bytes
        lines = Path("/proc/meminfo").read_text().splitlines()
        sizes = dict(line.split(":", 1) for line in lines)
        free_bytes = int(sizes["MemAvailable"].split()[0]) * 1024
        return f"{free_bytes / GIB:.1f} of {total_bytes / GIB:.1f} GiB"
    return ""
