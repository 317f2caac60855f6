"""Values that took long to find out, kept on disk until what they depend on changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nas.errors import OutputError
from nas.utils.files import atomic_write
from nas.utils.paths import cache_folder
from search_spaces.regular_files import read_regular

_LIBRARIES = ("torch", "torchvision")  # their versions decide too; read without importing them


class DiskCache:
    """A store of plain JSON objects, one file each, below `~/.cache/scratch-nas/NAME`.

    A value is found again under an equal key, also plain JSON, as long as the sources of `packages`
    and the versions of PyTorch and torchvision are those it was made with. The cache only saves
    time: a file that cannot be written or read, or that holds something else, is as good as none.

    Args:
        name: of the folder; one kind of value in each.
        packages: the Python packages whose sources decide what a value is, by their import names.
    """

    def __init__(self, name: str, packages: tuple[str, ...]) -> None:
        self.name, self.packages = name, packages

    def get_or_make(self, key: Any, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The value kept under `key`; where there is none, what `make` returns, kept from now
        on.
        """
        value = self.get(key)
        if value is None:
            value = make()
            self.put(key, value)
        return value

    def get(self, key: Any) -> dict[str, Any] | None:
        """The value kept under `key`; None where there is none."""
        text, path = self._text_and_path(key)
        try:
            content = json.loads(read_regular(path))
            return content["value"] if content["key"] == text else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def put(self, key: Any, value: dict[str, Any]) -> None:
        """Keep a value under `key`, instead of what was there."""
        text, path = self._text_and_path(key)
        content = json.dumps({"key": text, "value": value}).encode()
        with suppress(OSError, OutputError):
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, lambda file: file.write(content))

    def _text_and_path(self, key: Any) -> tuple[str, Path]:
        text = json.dumps([self.name, key, self._fingerprint], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return text, cache_folder() / self.name / digest[:2] / f"{digest[2:]}.json"

    @cached_property
    def _fingerprint(self) -> str:
        return code_fingerprint(self.packages)


def code_fingerprint(packages: tuple[str, ...]) -> str:
    """Hash what kept values depend on beside their keys: the sources of packages, and the versions
    of PyTorch and torchvision.
    """
    digest = hashlib.sha256()
    for package in packages:
        for source in sorted(_folder(package).rglob("*.py")):
            digest.update(source.read_bytes())
    return " ".join([*map(version, _LIBRARIES), digest.hexdigest()])


def _folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{package!r} is no package")
    return Path(next(iter(spec.submodule_search_locations)))
