"""What was traced once is kept on disk, by a key that names everything it depends on, this code and PyTorch included.

The cache only saves time: a file that cannot be written or read, or holds something else, is as good as none.
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

from nas.places import cache_folder

_SOURCES = ("memory", "backbone", "detectors")  # folders of this package that decide what a trace is


def cached(kind: str, key: Any, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `make` gives, plain JSON: from disk where `kind` and `key`, plain JSON too, were asked for before."""
    text = json.dumps([kind, key, _version()], sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()
    path = folder() / name[:2] / f"{name[2:]}.json"
    try:
        kept = json.loads(path.read_text())
        if kept["key"] == text:
            return kept["value"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    value = make()
    _write(path, json.dumps({"key": text, "value": value}))
    return value


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
    for source in sorted(path for name in _SOURCES for path in (package / name).glob("*.py")):
        digest.update(source.read_bytes())
    return f"{torch.__version__} {torchvision.__version__} {digest.hexdigest()}"
