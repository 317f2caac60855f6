"""The cache of decoded images: what it holds is what decoding gives, whatever happened to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nas.data import image_cache as pixels
from nas.data.coco import CocoSplit, ImageRecord
from nas.data.image_cache import PixelCache
from nas.errors import DataError

PLENTY = 10**9
SIZES = [(64, 48), (48, 64), (50, 50), (96, 40)]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "scratch-nas" / "pixels"


@pytest.fixture
def split(tmp_path: Path) -> CocoSplit:
    return make_split(tmp_path / "images", SIZES)


def make_split(folder: Path, sizes: list[tuple[int, int]]) -> CocoSplit:
    folder.mkdir()
    for index, size in enumerate(sizes):
        paint(folder / f"{index}.png", size, seed=index)
    records = tuple(ImageRecord(index, f"{index}.png", *size) for index, size in enumerate(sizes))
    return CocoSplit(folder, records, (), ((1, "a"),))


def paint(path: Path, size: tuple[int, int], seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(values).save(path)


def cache_of(split: CocoSplit, limit_bytes: int = PLENTY) -> PixelCache:
    return PixelCache(split, 40, 70, limit_bytes)


def same(split: CocoSplit, limit_bytes: int = PLENTY) -> bool:
    """Whether a cache gives what decoding gives."""
    ours, plain = cache_of(split, limit_bytes), cache_of(split, 0)
    return all(
        torch.equal(ours.read(index), plain.read(index)) for index in range(len(split.images))
    )


def decodings(split: CocoSplit, monkeypatch: pytest.MonkeyPatch, limit_bytes: int = PLENTY) -> int:
    """How many images a new cache decodes in one epoch."""
    count, decode = 0, pixels.read_rgb

    def counted(*arguments: object) -> Image.Image:
        nonlocal count
        count += 1
        return decode(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pixels, "read_rgb", counted)
        assert same(split, limit_bytes)
    return count - len(split.images)  # those of the plain one


def test_images_are_decoded_once_for_all_processes(
    split: CocoSplit, monkeypatch: pytest.MonkeyPatch
):
    assert decodings(split, monkeypatch) == 4
    assert decodings(split, monkeypatch) == 0
    assert decodings(split, monkeypatch, limit_bytes=0) == 4


def test_another_size_is_another_cache(split: CocoSplit, home: Path):
    assert same(split)
    assert PixelCache(split, 20, 70, PLENTY).read(0).shape == (3, 20, 27)
    assert len([entry for entry in home.iterdir() if entry.is_dir()]) == 2


def test_a_changed_image_is_decoded_again(split: CocoSplit, monkeypatch: pytest.MonkeyPatch):
    assert same(split)
    paint(split.folder / "1.png", SIZES[1], seed=99)
    assert decodings(split, monkeypatch) == 1
    assert decodings(split, monkeypatch) == 0


def test_a_missing_or_broken_image_is_an_error(split: CocoSplit):
    assert same(split)
    (split.folder / "2.png").unlink()
    with pytest.raises(
        DataError,
        match=r"2.png' was sound when the data set was checked, and is not now: is missing",
    ):
        cache_of(split).read(2)
    (split.folder / "2.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="is not an image"):
        cache_of(split).read(2)


def test_damaged_pixels_are_not_believed(
    split: CocoSplit, home: Path, monkeypatch: pytest.MonkeyPatch
):
    assert same(split)
    (file,) = home.glob("*/pixels")
    content = bytearray(file.read_bytes())
    content[7] ^= 255
    file.write_bytes(content)
    assert decodings(split, monkeypatch) == 1
    assert decodings(split, monkeypatch) == 0


@pytest.mark.parametrize("size", [0, 100])
def test_a_truncated_cache_is_made_whole(
    split: CocoSplit, home: Path, monkeypatch: pytest.MonkeyPatch, size: int
):
    assert same(split)
    for file in (*home.glob("*/pixels"), *home.glob("*/table")):
        os.truncate(file, size)
    assert decodings(split, monkeypatch) == 4
    assert decodings(split, monkeypatch) == 0


def test_what_does_not_fit_is_decoded_each_time(split: CocoSplit, monkeypatch: pytest.MonkeyPatch):
    two = 3 * (40 * 53 + 53 * 40)
    assert decodings(split, monkeypatch, limit_bytes=two) == 4
    assert decodings(split, monkeypatch, limit_bytes=two) == 2


def test_unused_caches_make_room_and_used_ones_stay(split: CocoSplit, tmp_path: Path, home: Path):
    large = [(640, 480)] * 3
    first, second = (
        PixelCache(make_split(tmp_path / name, large), 400, 700, PLENTY)
        for name in ("first", "second")
    )
    for index in range(3):
        first.read(index)
        second.read(index)
    assert first.key != second.key
    second.__dict__["_maps"] = None  # closed
    third = PixelCache(split, 400, 700, 3 * int(first.ends[-1]) // 2)
    third.read(0)
    assert (home / first.key).is_dir()
    assert not (home / second.key).exists()
    assert first.read(0).shape == (3, 400, 533)


def test_a_full_disk_only_costs_time(split: CocoSplit, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    assert same(split)
    monkeypatch.undo()
    assert decodings(split, monkeypatch) == 4


def test_a_folder_that_cannot_be_written_only_costs_time(
    split: CocoSplit, home: Path, monkeypatch: pytest.MonkeyPatch
):
    home.parent.mkdir(parents=True)
    home.write_text("a file where the folder should be")
    assert same(split)


_WORKER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_image_cache import cache_of
from nas.data.coco import CocoSplit, ImageRecord
folder = Path({folder!r})
images = tuple(ImageRecord(i, f"{{i}}.png", 64, 48) for i in range({count}))
while True:
    cache = cache_of(CocoSplit(folder, images, (), ((1, "a"),)))
    for index in range({count}):
        cache.read(index)
        print(index, flush=True)
    for table in Path({home!r}).glob("*/table"):
        with table.open("r+b") as file:  # forget all; a shorter file would kill who has it mapped
            file.write(bytes(table.stat().st_size))
"""


def test_processes_that_write_at_once_and_are_killed_leave_no_wrong_pixel(
    tmp_path: Path, home: Path
):
    split = make_split(tmp_path / "many", [(64, 48)] * 30)
    code = _WORKER.format(
        tests=str(Path(__file__).parent), folder=str(split.folder), count=30, home=str(home)
    )
    workers = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(3)
    ]
    for worker in workers:
        assert worker.stdout.readline()  # it has begun
    for worker in workers:
        time.sleep(0.05)
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
    assert same(split)
    assert same(split)
