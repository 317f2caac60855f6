from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from nas.errors import OutputError, StudyError
from nas.utils.files import atomic_folder, ensure_writable


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


def test_a_folder_appears_whole_or_stays_as_it_was(tmp_path: Path):
    folder = tmp_path / "a" / "bundle"
    for content in ("first", "second"):
        with atomic_folder(folder) as partial:
            assert not list(partial.iterdir())
            (partial / content).write_text(content)
        assert [path.name for path in folder.iterdir()] == [content]
    with suppress(KeyError), atomic_folder(folder) as partial:
        (partial / "third").write_text("third")
        raise KeyError
    assert [path.name for path in folder.iterdir()] == ["second"]
    assert {path.name for path in folder.parent.iterdir()} == {"bundle", "bundle.partial"}
    with atomic_folder(folder) as partial:
        assert not list(partial.iterdir())  # nothing of the one that failed
