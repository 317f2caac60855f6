"""A data set that was checked before is not read again, until one of its files changes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.coco_files import GOOD, write
from PIL import Image

from nas.data import known_images, validation
from nas.data.fingerprint import fingerprint
from nas.data.split_index import read_split, write_split
from nas.data.validation import CheckedSplit, check_split, check_splits
from nas.utils.paths import cache_folder


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the annotation files that were read."""
    names: list[str] = []
    read = validation._read

    def spy(source, progress, masks):
        names.append(source.annotations.name)
        return read(source, progress, masks)

    monkeypatch.setattr(validation, "_read", spy)
    monkeypatch.setattr(known_images, "SETTLED_NS", 0)
    return names


def settled(root: Path) -> Path:
    time.sleep(0.05)  # more than a tick of the file system's clock
    return root


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set, and a cache that no other test has written to."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    coco = json.loads(json.dumps(GOOD))
    coco["annotations"][0]["segmentation"] = [[5, 6, 25, 6.5, 15, 16]]
    coco["annotations"][2]["bbox"] = [50, 30, 20, 5]  # partly outside
    return settled(write(tmp_path, coco))


def same(one: CheckedSplit, other: CheckedSplit) -> bool:
    assert fingerprint([one.split]) == fingerprint([other.split])
    return (one.split, one.problems, one.digests) == (other.split, other.problems, other.digests)


def test_what_was_checked_is_given_again(root: Path, reads: list[str]):
    first = check_split(root, "train")
    again = check_split(root, "train")
    assert reads == ["instances_train.json"]
    assert same(first, again)
    assert [issue.kind for issue in again.problems] == ["box partly outside the image"]
    assert again.split.boxes.segmentation(0) == [[5, 6, 25, 6.5, 15, 16]]


def other_image(root: Path) -> None:
    """Of equal size and time, written into the same file."""
    path = root / "train" / "a.png"
    before = path.stat()
    Image.fromarray(np.full((40, 60, 3), 200, dtype=np.uint8)).save(path)
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def other_annotations(root: Path) -> None:
    path = root / "instances_train.json"
    path.write_text(path.read_text().replace('"bbox": [0,', '"bbox": [1,'))


@pytest.mark.parametrize("change", [other_image, other_annotations])
def test_a_change_is_noticed(root: Path, reads: list[str], change: Callable[[Path], None]):
    first = fingerprint([check_split(root, "train").split])
    change(root)
    settled(root)
    assert fingerprint([check_split(root, "train").split]) != first
    assert len(reads) == 2


def test_a_missing_image_is_looked_for_again(root: Path, reads: list[str]):
    content = (root / "train" / "b.png").read_bytes()
    (root / "train" / "b.png").unlink()
    assert check_split(root, "train").lost
    (root / "train" / "b.png").write_bytes(content)
    assert not check_split(settled(root), "train").lost
    (root / "train" / "b.png").unlink()
    assert check_split(root, "train").lost
    assert len(reads) == 3


def test_a_damaged_file_of_the_cache_is_as_good_as_none(root: Path, reads: list[str]):
    first = check_split(root, "train")
    (path,) = (cache_folder() / "checks").glob("*.npz")
    whole = path.read_bytes()
    later = b"PK\x01\x02\xff\xff\xff\xff"  # of a version of zip files that is to come
    for number, damaged in enumerate((whole[:100], whole.replace(b"PK\x01\x02", later[:8])), 2):
        path.write_bytes(damaged)
        assert same(first, check_split(root, "train"))
        assert len(reads) == number


def test_masks_are_read_when_they_are_asked_for_first(root: Path, reads: list[str]):
    def bare() -> None:
        for _ in range(2):
            (checked,) = check_splits(root, ("train",), masks=False)
            assert not checked.split.has_masks
            assert len(checked.split.boxes) == 3

    bare()
    assert len(reads) == 1
    assert check_split(root, "train").split.boxes.segmentation(0) == [[5, 6, 25, 6.5, 15, 16]]
    bare()
    assert len(reads) == 2


def test_what_an_earlier_version_kept_is_as_good_as_none(root: Path, reads: list[str]):
    first = check_split(root, "train")
    (path,) = (cache_folder() / "checks").glob("*.npz")
    with path.open("rb") as file:
        split, more = read_split(file)
    del more["masks"]
    with path.open("wb") as file:
        write_split(file, split, {**more, "state": "of other code"})
    assert same(first, check_split(root, "train"))
    assert len(reads) == 2
