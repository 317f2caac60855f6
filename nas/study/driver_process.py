"""Which process drives a study, as other machines see it, and whether it still exists."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def driver_name(pid: int | None = None, host: str | None = None) -> str:
    """Name a driver for people, `process PID on HOST`.

    Args:
        pid: of the driver; None: of this process.
        host: its `host_id`; None: that of this process.
    """
    return f"process {pid or os.getpid()} on {(host or host_id()).split('/')[0]}"


def host_id() -> str:
    """Identify where this process's pid means something: host name, boot and process namespace, as
    `HOST/BOOT/NAMESPACE`; a part that is not known is empty.
    """
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    parts = [socket.gethostname(), boot.read_text().strip() if boot.exists() else ""]
    parts.append(os.readlink(namespace) if namespace.exists() else "")
    return "/".join(parts)


def is_gone(pid: int, host: str) -> bool:
    """Whether a process is known not to exist any more; False where it cannot be known from
    here.
    """
    return host == host_id() and not _process_exists(pid)


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
