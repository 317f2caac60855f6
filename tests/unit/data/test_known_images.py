"""Images are decoded once, and again when they change, also by a file of equal size and time."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from nas.data import known_images
from nas.data.image_io import BrokenImage, ImageFacts, inspect_images
from nas.data.known_images import inspect_folder

FILES = [("a.png", (20, 10)), ("b.png", None), ("missing.png", None)]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were decoded."""
    names: list[str] = []

    def spy(files):
        files = list(files)
        names.extend(path.name for path, _ in files)
        return inspect_images(files)

    monkeypatch.setattr(known_images, "inspect_images", spy)
    monkeypatch.setattr(known_images, "SETTLED_NS", 0)
    return names


def written(folder: Path) -> Path:
    for name, shade in (("a.png", 1), ("b.png", 2)):
        Image.new("RGB", (20, 10), (shade, 0, 0)).save(folder / name)
    time.sleep(0.05)  # more than a tick of the file system's clock
    return folder


def facts(folder: Path) -> list[ImageFacts | str]:
    return [
        str(each) if isinstance(each, BrokenImage) else each
        for each in inspect_folder(folder, FILES)
    ]


def test_known_images_are_not_decoded_again(tmp_path: Path, decoded: list[str]):
    first = facts(written(tmp_path))
    assert [*decoded] == ["a.png", "b.png", "missing.png"]
    decoded.clear()
    assert facts(tmp_path) == first
    assert decoded == ["missing.png"]


def test_a_file_of_equal_size_and_time_is_decoded(tmp_path: Path, decoded: list[str]):
    first = facts(written(tmp_path))
    path, stat = tmp_path / "a.png", (tmp_path / "a.png").stat()
    content = bytearray(path.read_bytes())
    Image.new("RGB", (20, 10), (3, 0, 0)).save(path)
    assert path.stat().st_size == len(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    decoded.clear()
    again = facts(tmp_path)
    assert decoded == ["a.png", "missing.png"]
    assert isinstance(first[0], ImageFacts)
    assert isinstance(again[0], ImageFacts)
    assert again[0].digest != first[0].digest
    assert again[1:] == first[1:]


def test_a_file_under_several_names_is_decoded_once(tmp_path: Path, decoded: list[str]):
    written(tmp_path)
    for name in ("c.png", "a.jpg"):
        os.link(tmp_path / "a.png", tmp_path / name)
    time.sleep(0.05)
    names = ("c.png", "b.png", "a.jpg", "a.png")
    found = list(inspect_folder(tmp_path, [(name, (20, 10)) for name in names]))
    assert decoded == ["c.png", "b.png", "a.jpg"]  # named by another format: found in its name
    assert found == list(inspect_images([(tmp_path / name, (20, 10)) for name in names]))
    assert [each.misnamed for each in found] == [None, None, "PNG", None]


def test_what_is_expected_of_a_file_counts(tmp_path: Path, decoded: list[str]):
    facts(written(tmp_path))
    decoded.clear()
    list(inspect_folder(tmp_path, [("a.png", (10, 20)), ("b.png", None)]))
    assert decoded == ["a.png"]


def test_what_changed_a_moment_ago_is_not_kept(
    tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(known_images, "SETTLED_NS", 10**12)
    facts(written(tmp_path))
    decoded.clear()
    facts(tmp_path)
    assert decoded == ["a.png", "b.png", "missing.png"]


def test_a_broken_image_is_looked_into_again(tmp_path: Path, decoded: list[str]):
    written(tmp_path)
    (tmp_path / "b.png").write_bytes(b"no image")
    time.sleep(0.05)
    assert facts(tmp_path)[1] == "is not an image"
    decoded.clear()
    assert facts(tmp_path)[1] == "is not an image"
    assert decoded == ["b.png", "missing.png"]
    Image.new("RGB", (20, 10), (2, 0, 0)).save(tmp_path / "b.png")
    sound = facts(tmp_path)[1]
    assert isinstance(sound, ImageFacts)
    assert replace(sound, digest="") == replace(facts(tmp_path)[0], digest="")  # type: ignore[type-var]
