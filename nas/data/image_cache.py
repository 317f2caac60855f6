"""Decoded images of a split, resized once and kept on this machine's disk for all candidates,
epochs and searches.

A cache is a folder of two files that processes map into memory: `pixels`, a slot of 8-bit RGB for
each image (the file is sparse: what was not written takes no room), and `table`, which says what is
in the slots. An entry counts only if the image file still has the size and time that it had, and if
the slot's checksum is right, which each process tests once. So candidates need no lock between
them, and neither a killed process nor a machine without power leaves pixels that are wrong.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import weakref
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from nas.data.batch_shapes import resized_size
from nas.data.coco import CocoSplit
from nas.data.image_io import BrokenImage, broken_image_as_data_error, read_rgb
from nas.utils.paths import cache_folder

_FILES = ("in_use", "table", "pixels")  # of one cache
_ENTRY = np.dtype([("checksum", "<u4"), ("mtime_ns", "<i8"), ("file_bytes", "<i8")])
_FORMAT = 2
_FREE_SHARE = 2  # a cache takes at most 1 / this of the free disk: checkpoints need some of it


class PixelCache:
    """The decoded images of a split at one size, from the cache where they are in it.

    Args:
        split: the images.
        short_side, long_side: size in pixels that they are resized to (see `resized_size`).
        limit_bytes: what all caches of this machine may take together; 0 keeps nothing. Images
            without room are decoded each time, caches that nobody uses are removed, the longest
            unused first.
    """

    def __init__(self, split: CocoSplit, short_side: int, long_side: int, limit_bytes: int) -> None:
        self.split = split
        self.sizes = [
            resized_size(image.height, image.width, short_side, long_side) for image in split.images
        ]
        self.ends = np.cumsum([3 * height * width for height, width in self.sizes])
        self.key = _key(split, short_side, long_side)
        self.limit_bytes = limit_bytes
        self._maps: _MappedFiles | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": None}  # a loader's process maps the files itself

    def read(self, index: int) -> Tensor:
        """Give an image: [3, H, W], uint8, resized.

        Raises:
            DataError: the image cannot be decoded.
        """
        if self._maps is None:
            self._maps = _MappedFiles(self.key, self.ends, self.limit_bytes)
        record, (height, width) = self.split.images[index], self.sizes[index]
        path = self.split.folder / record.file_name
        with broken_image_as_data_error(path):
            version = _version(path)
            pixels = self._maps.get(index, version)
            if pixels is None:
                pixels = self.decode(index)
                self._maps.put(index, version, pixels)
        return torch.from_numpy(pixels).view(3, height, width)

    def decode(self, index: int) -> np.ndarray:
        """Decode and resize an image from its own file: its pixels, [3 * H * W], uint8.

        Raises:
            BrokenImage: it cannot be decoded.
        """
        record = self.split.images[index]
        path, size = self.split.folder / record.file_name, (record.width, record.height)
        pixels = F.pil_to_tensor(read_rgb(path, size, self.split.white_level))
        resized: Tensor = F.resize_image(pixels, list(self.sizes[index]), antialias=True)
        return resized.contiguous().numpy().reshape(-1)

    @property
    def cached_images(self) -> int:
        """Number of images that are in the cache, as far as its table says."""
        try:
            table = np.fromfile(cache_folder() / "pixels" / self.key / "table", dtype=_ENTRY)
        except OSError:
            return 0
        return int(np.count_nonzero(table["checksum"]))


class _MappedFiles:
    """The two files of a cache, open in this process."""

    def __init__(self, key: str, ends: np.ndarray, limit_bytes: int) -> None:
        self.starts, self.ends = np.concatenate([[0], ends[:-1]]), ends
        self.room_bytes = 0
        self._verified: dict[int, int] = {}  # checksums that were tested, by index
        root = cache_folder() / "pixels"
        folder = root / key
        with suppress(OSError), _locked(root):
            self._open(
                folder, min(int(ends[-1]), _free_bytes(root, folder, int(ends[-1]), limit_bytes))
            )

    def _open(self, folder: Path, room_bytes: int) -> None:
        if room_bytes <= 0:
            return
        folder.mkdir(exist_ok=True)
        fcntl.flock(self._kept_open(folder / "in_use"), fcntl.LOCK_SH)
        os.utime(folder)
        table = folder / "table"
        table_bytes = _ENTRY.itemsize * len(self.ends)
        if not table.exists() or table.stat().st_size != table_bytes:
            table.write_bytes(bytes(table_bytes))  # not sparse: a mapped write must never lack room
        self.file = self._kept_open(folder / "pixels")
        os.ftruncate(self.file, int(self.ends[-1]))
        self.pixels = np.memmap(folder / "pixels", dtype=np.uint8, mode="r")
        self.table = np.memmap(table, dtype=_ENTRY, mode="r+")
        self.room_bytes = room_bytes

    def _kept_open(self, path: Path) -> int:
        """A descriptor that lives as long as this object."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        weakref.finalize(self, os.close, descriptor)
        return descriptor

    def get(self, index: int, version: tuple[int, int]) -> np.ndarray | None:
        """Copy the pixels of an image; None where they are not there, or of another version of the
        file.
        """
        if self.ends[index] > self.room_bytes:
            return None
        checksum, mtime_ns, file_bytes = self.table[index].tolist()
        if not checksum or (mtime_ns, file_bytes) != version:
            return None
        pixels = np.array(self.pixels[self.starts[index] : self.ends[index]])
        if self._verified.get(index) != checksum:
            if _checksum(pixels) != checksum:
                return None
            self._verified[index] = checksum
        return pixels

    def put(self, index: int, version: tuple[int, int], pixels: np.ndarray) -> None:
        """Keep the pixels; whoever decodes the same image at the same time writes the same
        bytes.
        """
        if self.ends[index] > self.room_bytes:
            return
        try:
            # By a call, not through the map: on a full disk that would kill the process.
            if os.pwrite(self.file, pixels.data, int(self.starts[index])) < len(pixels):
                return
        except OSError:
            self.room_bytes = 0
            return
        self.table[index] = (_checksum(pixels), *version)


def _key(split: CocoSplit, short_side: int, long_side: int) -> str:
    images = [(image.file_name, image.width, image.height) for image in split.images]
    sizes = [short_side, long_side, split.white_level]
    what = json.dumps([_FORMAT, str(split.folder.resolve()), images, *sizes, split.content])
    return hashlib.sha256(what.encode()).hexdigest()[:16]


def _version(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise BrokenImage(
            "is missing" if isinstance(error, FileNotFoundError) else str(error.strerror)
        ) from None
    return status.st_mtime_ns, status.st_size


def _checksum(pixels: np.ndarray) -> int:
    return zlib.crc32(pixels.data) or 1  # 0 says that there is nothing


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Caches of this machine are opened and removed one after the other."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _free_bytes(root: Path, own: Path, needed_bytes: int, limit_bytes: int) -> int:
    """Bytes that the cache in `own` may take, after unused ones have made room for it."""
    others = sorted(
        (f for f in root.iterdir() if f.is_dir() and f != own),
        key=lambda folder: folder.stat().st_mtime,
    )
    taken = {folder: _taken_bytes(folder) for folder in others}
    for folder in others:
        if needed_bytes + sum(taken.values()) > limit_bytes and _remove_unused(folder):
            del taken[folder]
    free = shutil.disk_usage(root).free // _FREE_SHARE + (_taken_bytes(own) if own.exists() else 0)
    return min(limit_bytes - sum(taken.values()), free)


def _taken_bytes(folder: Path) -> int:
    return sum(512 * file.stat().st_blocks for file in folder.iterdir())


def _remove_unused(folder: Path) -> bool:
    """Remove a cache unless a process has it open, or something else is in it."""
    if {file.name for file in folder.iterdir()} - {*_FILES}:
        return False
    with (folder / "in_use").open("w") as in_use:
        try:
            fcntl.flock(in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        with suppress(OSError):
            for name in _FILES:
                (folder / name).unlink(missing_ok=True)
            folder.rmdir()
    return True
