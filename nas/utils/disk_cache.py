"""What was traced or measured once is kept on disk, by a key that names everything it depends on,
PyTorch and our code too.

The cache only saves time: a file that cannot be written or read, or holds something else, is as
good as none.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torchvision

from nas.utils.paths import cache_folder

_SOURCES = ("profiling/memory", "models")  # folders of this package that decide what a trace is


def cached(kind: str, key: Any, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `make` gives, plain JSON: from disk where `kind` and `key`, plain JSON too, were asked
    for before.
    """
    value = kept(kind, key)
    if value is None:
        keep(kind, key, value := make())
    return value


def kept(kind: str, key: Any) -> dict[str, Any] | None:
    """What was kept by this kind and key; None where nothing was."""
    text, path = _place(kind, key)
    try:
        found = json.loads(path.read_text())
        return found["value"] if found["key"] == text else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(kind: str, key: Any, value: dict[str, Any]) -> None:
    """Put something where `kept` finds it, instead of what was there."""
    text, path = _place(kind, key)
    _write(path, json.dumps({"key": text, "value": value}))


def _place(kind: str, key: Any) -> tuple[str, Path]:
    text = json.dumps([kind, key, _version()], sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()
    return text, folder() / name[:2] / f"{name[2:]}.json"


def folder() -> Path:
    """Where the files are."""
    return cache_folder() / "memory"


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            file.write(text)
        os.replace(file.name, path)  # whole or not at all, whoever else writes it
    except OSError:
        pass


@cache
def _version() -> str:
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for source in sorted(path for name in _SOURCES for path in (package / name).rglob("*.py")):
        digest.update(source.read_bytes())
    return f"{torch.__version__} {torchvision.__version__} {digest.hexdigest()}"
