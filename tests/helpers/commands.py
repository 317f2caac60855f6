"""The command line, as tests use it."""

from __future__ import annotations

from collections.abc import Callable

Run = Callable[..., tuple[int, str, str]]  # words of a command to its exit code, stdout, stderr
