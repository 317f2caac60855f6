"""What is imported with what."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def absent(package: str) -> Iterator[None]:
    """Let a package that has not been imported yet seem not to be installed, inside the block:
    other libraries that can do without it are imported without it.

    Args:
        package: name at the top, `pandas`.
    """
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
