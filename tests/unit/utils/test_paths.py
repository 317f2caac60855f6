"""Paths of requests: of a home, of no home."""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path

import pytest

from nas.errors import SpecError
from nas.utils.paths import cache_folder, localize, short_name, to_path


def test_a_tilde_is_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert to_path("~/cells") == tmp_path / "cells"
    assert localize("~/cells") == tmp_path / "cells"
    assert to_path("a~b").name == "a~b"
    for read in (to_path, localize):
        with pytest.raises(SpecError, match="'~nobody.here/x' begins with a home that is not"):
            read("~nobody.here/x")


def test_a_link_to_itself_is_a_path_that_nothing_is_at(tmp_path: Path):
    (tmp_path / "loop").symlink_to("loop")
    assert to_path(f"{tmp_path}/loop/../cells") == tmp_path / "cells"
    assert not to_path(f"{tmp_path}/loop").exists()


def test_names_are_cut_and_stay_apart():
    assert short_name("é" * 100) == "é" * 100
    names = [short_name("é" * 120 + end) for end in ("a", "b")]
    assert names[0] != names[1]
    assert all(len(name.encode()) < 215 for name in names)


def test_a_copy_that_is_there_needs_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In a cache of several users the lock is that of the one who made the copy."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("train/a.txt", "a")
        archive.writestr("b.txt", "b")
    copy = localize(f"{tmp_path}/a.zip")

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("nas.utils.paths.FileLock", refused)
    localize.cache_clear()
    assert localize(f"{tmp_path}/a.zip") == copy
    assert (copy / "train" / "a.txt").read_text() == "a"


def test_a_user_without_a_home_has_a_cache_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert cache_folder() == tmp_path / f"cache-{os.getuid()}" / "scratch-nas"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/scratch-nas")
