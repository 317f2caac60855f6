"""Images cut into tiles that overlap, with their boxes and masks.

Objects of a few pixels in a large scene vanish when it is made as small as a detector takes it. In
tiles they keep their size.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from nas.data.box_table import Box, BoxTable
from nas.data.coco import CocoSplit, ImageRecord
from nas.data.conversion import check_new_folder, write_annotations
from nas.data.dataset import LEAST_VISIBLE
from nas.data.image_io import broken_image_as_data_error, read_rgb
from nas.data.segmentation import Segmentation, extent
from nas.errors import SpecError
from nas.utils.files import os_errors_as_output_error
from nas.utils.folders import atomic_folder
from nas.utils.paths import short_name
from nas.utils.progress import CountProgress

JPEG_QUALITY = 95  # of tiles of a JPEG; all others are PNG
LEAST_SIDE = 1.0  # pixels of a box


class Window(NamedTuple):
    """A tile's place in its image, pixels."""

    left: int
    top: int
    width: int
    height: int


def write_tiles(
    out: Path,
    splits: Sequence[tuple[str, CocoSplit]],
    size: int,
    overlap: int,
    progress: CountProgress | None = None,
) -> list[tuple[str, CocoSplit]]:
    """Write the tiles of splits in plain COCO form.

    An object of which less than 30 % is inside a tile is a crowd there: it is neither trained on
    nor counted. Tiles without objects are written too.

    Args:
        out: a new folder, which is there only once it is whole.
        splits: name and content of each.
        size: side of a tile in pixels; smaller images are one tile of their own size.
        overlap: pixels that neighbouring tiles share at least, less than `size`; it should be the
            size of a large object.
        progress: told of every image.

    Returns:
        The names, and what was written of each.

    Raises:
        OutputError: the folder is there already, or cannot be written.
        SpecError: no such size or overlap.
        DataError: an image cannot be decoded any more.
    """
    if not 0 <= overlap < size:
        raise SpecError(f"--overlap must be from 0 to less than --size {size}; got {overlap}")
    check_new_folder(out)
    with os_errors_as_output_error(out), atomic_folder(out) as partial:
        written = [
            (name, _write_split(partial / name, name, split, size, overlap, progress))
            for name, split in splits
        ]
        for name, tiles in written:
            write_annotations(partial, name, tiles)
    return written


def windows(width: int, height: int, size: int, overlap: int) -> Iterator[Window]:
    """Cover an image with tiles, row by row; all are as large as its smaller sides allow, and
    evenly spread.
    """
    for top in _starts(height, size, overlap):
        for left in _starts(width, size, overlap):
            yield Window(left, top, min(size, width), min(size, height))


def cut_box(box: Box, window: Window, size: tuple[int, int]) -> Box | None:
    """Cut an object to a tile; None where nothing of it is inside.

    Args:
        box: in pixels of the whole image.
        window: the tile.
        size: height and width of the whole image in pixels.

    Returns:
        The object in pixels of the tile, a crowd where less than 30 % of its box is inside.
    """
    x, y, w, h = box.bbox
    left, top = max(x - window.left, 0.0), max(y - window.top, 0.0)
    right = min(x + w - window.left, float(window.width))
    bottom = min(y + h - window.top, float(window.height))
    if min(right - left, bottom - top) < min(LEAST_SIDE, w, h):
        return None
    share = (right - left) * (bottom - top) / (w * h)
    bbox, area = (left, top, right - left, bottom - top), box.area * share
    mask = None
    if box.segmentation is not None:
        mask, area = _cut_mask(box.segmentation, window, size)
        inside = extent(mask) if area else None
        if inside is None:
            return None
        bbox = inside if share < 1 else bbox
    crowd = box.iscrowd or int(share < LEAST_VISIBLE)
    return replace(box, bbox=bbox, area=area, iscrowd=crowd, segmentation=mask)


def _write_split(
    folder: Path,
    name: str,
    split: CocoSplit,
    size: int,
    overlap: int,
    progress: CountProgress | None,
) -> CocoSplit:
    boxes = defaultdict[int, list[Box]](list)
    for box in split.boxes:
        boxes[box.image_id].append(box)
    records, cut = list[ImageRecord](), list[Box]()
    for done, image in enumerate(split.images, start=1):
        path = split.folder / image.file_name
        with broken_image_as_data_error(path):
            pixels = read_rgb(path, (image.width, image.height), split.white_level)
        for window in windows(image.width, image.height, size, overlap):
            tile = ImageRecord(len(records) + 1, _tile_name(image, window), *window[2:])
            _save(pixels, window, folder / tile.file_name)
            records.append(tile)
            parts = (cut_box(b, window, (image.height, image.width)) for b in boxes[image.id])
            for part in filter(None, parts):
                cut.append(replace(part, id=len(cut) + 1, image_id=tile.id))
        if progress:
            progress(name, done, len(split.images))
    return CocoSplit(folder, tuple(records), BoxTable.of(cut), split.categories)


def _tile_name(image: ImageRecord, window: Window) -> str:
    path = Path(image.file_name)
    suffix = path.suffix if path.suffix.lower() in (".jpg", ".jpeg") else ".png"
    return str(path.with_name(f"{short_name(path.name)}_{window.left}_{window.top}{suffix}"))


def _save(pixels: Image.Image, window: Window, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    left, top, width, height = window
    tile = pixels.crop((left, top, left + width, top + height))
    tile.save(path, quality=JPEG_QUALITY)  # which other formats have no use for


def _starts(length: int, size: int, overlap: int) -> list[int]:
    if length <= size:
        return [0]
    gaps = math.ceil((length - size) / (size - overlap))
    return [round(index * (length - size) / gaps) for index in range(gaps + 1)]


def _cut_mask(
    mask: Segmentation, window: Window, size: tuple[int, int]
) -> tuple[Segmentation, float]:
    """The part of a mask inside a tile, as a run-length code, and its pixels."""
    left, top, width, height = window
    if isinstance(mask, list):
        shifted = [(np.reshape(part, (-1, 2)) - (left, top)).ravel().tolist() for part in mask]
        code = coco_mask.merge(coco_mask.frPyObjects(shifted, height, width))
    else:
        listed = isinstance(mask["counts"], list)
        whole = coco_mask.decode(coco_mask.frPyObjects(mask, *size) if listed else mask)
        part = whole[top : top + height, left : left + width]
        code = coco_mask.encode(np.asfortranarray(part))
    counts = code["counts"].decode()
    return {"size": [height, width], "counts": counts}, float(coco_mask.area(code))
