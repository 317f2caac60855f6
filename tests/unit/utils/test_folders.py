"""Folders that are put in the place of others and removed: never one of somebody else."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from nas.errors import OutputError
from nas.utils.folders import (
    FRESH_S,
    SCRATCH,
    atomic_folder,
    claim_folder,
    own_folder,
    remove_claimed,
    scratch_folder,
)


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_folder_appears_whole_or_stays_as_it_was(tmp_path: Path):
    folder = tmp_path / "a" / "bundle"
    for content in ("first", "second"):
        with atomic_folder(folder) as partial:
            assert not list(partial.iterdir())
            (partial / content).write_text(content)
        assert contents(folder) == {content: content}
    with suppress(KeyError), atomic_folder(folder) as partial:
        (partial / "third").write_text("third")
        raise KeyError
    assert contents(folder) == {"second": "second"}
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_neighbours_of_likely_names_stay(tmp_path: Path):
    for name in ("x.partial", "x.training", "x.old", ".x"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").write_text("mine")
    with atomic_folder(tmp_path / "x") as partial:
        (partial / "a").write_text("a")
    assert len(list(tmp_path.rglob("thesis.tex"))) == 4


def test_a_link_keeps_leading_to_its_folder(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with atomic_folder(tmp_path / "link") as partial:
        (partial / "a").write_text("a")
    assert (tmp_path / "link").is_symlink()
    assert contents(tmp_path / "real") == {"a": "a"}


def test_what_comes_meanwhile_is_not_removed(tmp_path: Path):
    folder = tmp_path / "x"
    folder.mkdir()

    def fill() -> None:
        with atomic_folder(folder) as partial:
            (partial / "a").write_text("a")
            (folder / "notes").write_text("mine")

    with pytest.raises(OutputError, match="was changed by somebody meanwhile"):
        fill()
    assert contents(tmp_path) == {"x/notes": "mine"}


@pytest.mark.parametrize("inside", [False, True], ids=["beside", "inside"])
def test_a_folder_that_cannot_be_renamed_is_filled_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool
):
    """As a container's volume is; the last file moves in last, and old ones out after that."""
    folder = tmp_path / "volume"
    folder.mkdir()
    (folder / "old").write_text("old")
    (folder / "both").write_text("old")
    if inside:
        monkeypatch.setattr(os.path, "ismount", lambda place: True)
    rename, moved = Path.rename, []

    def busy(self: Path, target: Path) -> Path:
        if self == folder:
            raise OSError(16, "Device or resource busy")
        return rename(self, target)

    def replace(source: Path, target: Path) -> None:
        moved.append((Path(target).name, (folder / "old").exists()))
        rename(Path(source), target)

    monkeypatch.setattr(Path, "rename", busy)
    monkeypatch.setattr(os, "replace", replace)
    with atomic_folder(folder, last="both") as partial:
        for name in ("both", "new", "z"):
            (partial / name).write_text("new")
    assert contents(tmp_path) == {"volume/both": "new", "volume/new": "new", "volume/z": "new"}
    assert moved == [("new", True), ("z", True), ("both", True)]


def test_a_real_mount_point(tmp_path: Path):
    volume = tmp_path / "volume"
    volume.mkdir()
    command = ["mount", "-t", "tmpfs", "none", str(volume)]
    if os.geteuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        for content in ("first", "second"):
            with atomic_folder(volume) as partial:
                (partial / content).write_text(content)
            assert contents(volume) == {content: content}
    finally:
        subprocess.run(["umount", str(volume)], check=True)


def test_a_claimed_folder_is_removed_and_no_other(tmp_path: Path):
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    claim_folder(mine)
    claim_folder(mine)
    (mine / "a").write_text("a")
    theirs.mkdir()
    (theirs / "a").write_text("a")
    with pytest.raises(OutputError, match="holds files that scratch-nas has not made"):
        claim_folder(theirs)
    for folder in (mine, theirs):
        remove_claimed(folder)
    assert contents(tmp_path) == {"theirs/a": "a"}
    with pytest.raises(OutputError, match="cannot be written: Not a directory"):
        claim_folder(theirs / "a" / "b")


def test_a_scratch_folder_is_gone_in_the_end(tmp_path: Path):
    with suppress(KeyError), scratch_folder(tmp_path, "x") as folder:
        (folder / "a").write_text("a")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_the_next_time(tmp_path: Path):
    left, used, young = (tmp_path / f".x{SCRATCH}{name}" for name in ("left", "used", "young"))
    for folder in (left, used, young):
        folder.mkdir()
        (folder / "a").write_text("a")
    long_ago = time.time() - 2 * FRESH_S
    for folder in (left, used):
        os.utime(folder, (long_ago, long_ago))
    held = os.open(used, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with scratch_folder(tmp_path, "x"):
        assert [folder.exists() for folder in (left, used, young)] == [False, True, True]
    os.close(held)


def test_a_folder_of_a_killed_process_goes_back_to_its_place(tmp_path: Path):
    left = tmp_path / f".bundle{SCRATCH}left"
    (left / "before").mkdir(parents=True)
    (left / "before" / "a").write_text("mine")
    os.utime(left, (time.time() - 2 * FRESH_S,) * 2)
    with suppress(KeyError), atomic_folder(tmp_path / "bundle"):
        raise KeyError
    assert contents(tmp_path) == {"bundle/a": "mine"}


def test_a_folder_among_temporary_files_is_this_users_alone(tmp_path: Path):
    made = own_folder(tmp_path / "mine")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert own_folder(made) == made
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(made)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for name in ("file", "link", "open"):
        with pytest.raises(OutputError, match=f"{name}' must be a folder of this user"):
            own_folder(tmp_path / name)
