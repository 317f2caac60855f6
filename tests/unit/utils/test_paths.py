"""Paths of requests: of a home, of no home."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from nas.utils.paths import cache_folder, localize, to_path


def test_a_tilde_is_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert to_path("~/cells") == tmp_path / "cells"
    assert localize("~/cells") == tmp_path / "cells"
    assert to_path("a~b").name == "a~b"


def test_a_user_without_a_home_has_a_cache_all_the_same(monkeypatch: pytest.MonkeyPatch):
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    assert cache_folder().is_relative_to(tempfile.gettempdir())
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/scratch-nas")
