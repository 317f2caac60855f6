from __future__ import annotations

from pathlib import Path

import pytest

from nas.errors import OutputError, StudyError
from nas.utils.files import ensure_writable


def test_a_folder_is_made_and_left_empty(tmp_path: Path):
    ensure_writable(folder := tmp_path / "a" / "b")
    ensure_writable(folder)
    assert list(folder.iterdir()) == []


def test_a_folder_that_takes_no_files(tmp_path: Path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError) as refused:
        ensure_writable(tmp_path / "file" / "below")
    assert str(refused.value) == f"'{tmp_path}/file/below' cannot be written: Not a directory"
    with pytest.raises(StudyError, match=r"^run.output 'x' cannot be written: File exists$"):
        ensure_writable(tmp_path / "file", "run.output 'x'", StudyError)
    assert (tmp_path / "file").read_text() == "kept"
