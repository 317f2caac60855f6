"""Folders of images by class: what is found, and what is wrong with them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from torchvision.datasets import ImageFolder

from nas.data.image_folder import (
    LabelledImages,
    check_images,
    find_classes,
    fingerprint,
    read_split,
)
from nas.errors import DataError


@pytest.fixture
def copy(sorted_digits: Path, tmp_path: Path) -> Path:
    """Of the digits, to be spoiled; with things that are no images."""
    shutil.copytree(sorted_digits, tmp_path / "mine")
    (tmp_path / "mine" / "train" / "digit-1" / "notes.txt").write_text("mine")
    (tmp_path / "mine" / "train" / "README").write_text("mine")
    (tmp_path / "mine" / "val" / ".cache").mkdir()
    return tmp_path / "mine"


@pytest.mark.parametrize("split", ["train", "val"])
def test_it_is_what_torchvision_finds(copy: Path, split: str):
    nested = copy / split / "digit-0" / "more" / "more"
    nested.mkdir(parents=True)
    shutil.copy(next((copy / split / "digit-2").iterdir()), nested / "A.PNG")
    shutil.rmtree(copy / "val" / ".cache")  # a class to torchvision
    expected = ImageFolder(copy / split)
    classes = find_classes(copy)
    found = read_split(copy, split, classes)
    assert list(classes) == expected.classes
    assert [
        (str(found.folder / file), label)
        for file, label in zip(found.files, found.labels, strict=True)
    ] == expected.samples


def test_hidden_folders_are_no_classes(copy: Path):
    assert find_classes(copy) == tuple(f"digit-{label}" for label in range(5))


def test_every_image_is_looked_into(sorted_digits: Path):
    images, heard = read_split(sorted_digits, "val", find_classes(sorted_digits)), []
    check_images(images, lambda *told: heard.append(told))
    assert heard == [("val", done, 50) for done in range(1, 51)]


def test_images_that_cannot_be_read_are_named(copy: Path):
    files = sorted((copy / "train" / "digit-3").iterdir())
    files[0].write_bytes(b"no image")
    files[1].write_bytes(files[1].read_bytes()[:60])
    with pytest.raises(DataError) as caught:
        check_images(read_split(copy, "train", find_classes(copy)))
    assert str(caught.value).startswith(
        f"'{copy}/train' has images that cannot be read: digit-3/{files[0].name} (is not an image)"
    )
    assert f"; digit-3/{files[1].name} (" in str(caught.value)
    for file in files:
        file.write_bytes(b"")
    with pytest.raises(DataError, match="; and 25 more$"):
        check_images(read_split(copy, "train", find_classes(copy)))


def test_the_fingerprint_changes_with_what_is_learnt(copy: Path):
    def now() -> str:
        classes = find_classes(copy)
        return fingerprint(
            classes, [read_split(copy, split, classes) for split in ("train", "val")]
        )

    seen, first = {now()}, sorted((copy / "val" / "digit-0").iterdir())[0]
    assert now() in seen
    (copy / "train" / "digit-0" / "notes.txt").write_text("no image")
    assert now() in seen
    first.write_bytes(first.read_bytes() + b"\0")
    seen.add(now())
    first.rename(copy / "val" / "digit-1" / first.name)
    seen.add(now())
    for split in ("train", "val"):
        (copy / split / "digit-4").rename(copy / split / "digit-5")
    seen.add(now())
    assert len(seen) == 4


def test_shares_are_the_whole():
    whole = LabelledImages(Path("x"), ("a", "b", "c", "d", "e"), (0, 0, 1, 1, 2))
    shares = [whole.share(rank, 3) for rank in range(3)]
    assert [share.files for share in shares] == [("a", "d"), ("b", "e"), ("c",)]
    assert [share.labels for share in shares] == [(0, 1), (0, 2), (1,)]
