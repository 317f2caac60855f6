"""Files that spaces are read from: regular ones, of a size that is sensible."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from search_spaces.errors import SpaceError
from search_spaces.loading import load_space


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(SpaceError, match=f"{name}.yaml' cannot be read: is no regular file"):
            load_space(f"{tmp_path}/{name}.yaml")


def test_what_is_no_space_is_named(tmp_path: Path):
    for name, content, words in (
        ("bytes", b"\xff\xfe\x00", "is not text"),
        ("list", b"[1]", "must be a mapping"),
        ("nothing", b"", "must be a mapping"),
    ):
        (tmp_path / f"{name}.yaml").write_bytes(content)
        with pytest.raises(SpaceError, match=words):
            load_space(f"{tmp_path}/{name}.yaml")
    with pytest.raises(SpaceError, match="No such file"):
        load_space(f"{tmp_path}/gone.yaml")
