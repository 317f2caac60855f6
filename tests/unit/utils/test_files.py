from __future__ import annotations

from multiprocessing import get_context
from pathlib import Path

import pytest

from nas.errors import OutputError, StudyError
from nas.utils.files import atomic_write, ensure_writable, remove_written


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


def _write(path: Path, word: bytes) -> None:
    for _ in range(200):
        atomic_write(path, lambda file: file.write(word * 1000))


def test_several_processes_may_write_a_file(tmp_path: Path):
    """Each is whole at every moment, as the file in their place is, and nothing is left over."""
    path, words = tmp_path / "file", (b"ours", b"your", b"them")
    writers = [get_context("fork").Process(target=_write, args=(path, word)) for word in words]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert not path.exists() or path.read_bytes() in [word * 1000 for word in words]
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_writer_left_goes_with_the_file(tmp_path: Path):
    for name in ("file", "file.abc.partial", "file2.abc.partial", "other"):
        (tmp_path / name).touch()
    remove_written(tmp_path / "file")
    remove_written(tmp_path / "file")
    assert {path.name for path in tmp_path.iterdir()} == {"file2.abc.partial", "other"}
