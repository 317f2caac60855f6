"""A checked split as one file of columns: workers read it, and so does a check of known data."""

from __future__ import annotations

import io
import itertools
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nas.data.box_table import BoxTable
from nas.data.coco import CocoSplit, ImageRecord
from nas.utils.files import atomic_write

COLUMNS = ("ids", "image_ids", "category_ids", "bboxes", "areas", "crowds")


def write_index(path: Path, split: CocoSplit) -> None:
    """Write a checked split to a file for workers; readers never see half a file.

    Raises:
        OutputError: the disk is full or away.
    """
    atomic_write(path, lambda file: write_split(file, split))


def read_index(path: Path) -> CocoSplit:
    """Read a split that `write_index` wrote; nothing is checked again."""
    return read_split(io.BytesIO(path.read_bytes()))[0]


def write_split(file: BinaryIO, split: CocoSplit, more: Any = None) -> None:
    """Write a split to an open file.

    Args:
        file: open for binary writing.
        split: its folder is written as an absolute path.
        more: plain JSON that is kept with it.
    """
    boxes, images = split.boxes, split.images
    about = {
        "folder": str(split.folder.resolve()),
        "categories": split.categories,
        "white_level": split.white_level,
        "content": split.content,
        "more": more,
    }
    arrays = dict(zip(COLUMNS, boxes.columns(), strict=True))
    sizes = [(image.id, image.width, image.height) for image in images]
    arrays["images"] = np.array(sizes, dtype=np.int64).reshape(-1, 3)
    arrays["about"] = _packed([json.dumps(about).encode()])[0]
    names, lengths = _packed([os.fsencode(image.file_name) for image in images])
    arrays |= {"names": names, "name_lengths": lengths}
    if boxes.masks:
        masks, lengths = _packed([mask or b"" for mask in boxes.masks])
        arrays |= {"masks": masks, "mask_lengths": lengths}
    np.savez(file, **arrays)  # type: ignore[arg-type]


def read_split(file: BinaryIO, *, masks: bool = True) -> tuple[CocoSplit, Any]:
    """Read a split that `write_split` wrote, and what was kept with it; nothing is checked again.

    Args:
        file: open for binary reading.
        masks: with the masks, which take most of the memory; else without.

    Raises:
        ValueError, KeyError, OSError, RuntimeError, zipfile.BadZipFile: it is no such file.
    """
    with np.load(file, allow_pickle=False) as arrays:
        about = json.loads(arrays["about"].tobytes())
        names = _unpacked(arrays["names"], arrays["name_lengths"])
        images = tuple(
            ImageRecord(number, os.fsdecode(name), width, height)
            for name, (number, width, height) in zip(names, arrays["images"].tolist(), strict=True)
        )
        packed = masks and "masks" in arrays
        codes = _unpacked(arrays["masks"], arrays["mask_lengths"]) if packed else []
        columns = [arrays[name] for name in COLUMNS]
        boxes = BoxTable.of_columns(columns, [code or None for code in codes])
    categories = tuple((number, name) for number, name in about["categories"])
    folder, white = Path(about["folder"]), about["white_level"]
    split = CocoSplit(folder, images, boxes, categories, white, about["content"])
    return split, about["more"]


def _packed(parts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Bytes one behind the other, and the length of each."""
    lengths = np.array([len(part) for part in parts], dtype=np.int64)
    return np.frombuffer(b"".join(parts), dtype=np.uint8), lengths


def _unpacked(joined: np.ndarray, lengths: np.ndarray) -> list[bytes]:
    whole, ends = joined.tobytes(), [0, *lengths.cumsum().tolist()]
    return [whole[start:end] for start, end in itertools.pairwise(ends)]
