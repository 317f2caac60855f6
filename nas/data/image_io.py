"""Image files: what is in them, and how they become RGB.

A photograph may say in its EXIF data that it is to be turned. It is turned as viewers and
annotation tools do, unless only the unturned size agrees with the annotation file. Grey, palette,
alpha, CMYK and 16-bit images become 8-bit RGB; alpha is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from nas.errors import DataError

_ORIENTATION = 0x0112
_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
}
_UNREADABLE = (
    UnidentifiedImageError,
    OSError,
    SyntaxError,
    ValueError,
    Image.DecompressionBombError,
)


class BrokenImage(Exception):
    """An image file that cannot be decoded, or only in part; the text says why."""


@dataclass(frozen=True)
class ImageFacts:
    """What an image file holds.

    Args:
        width, height: size in pixels as the image is used.
        turned: it was turned as its EXIF data say.
        converted_from: mode of an image that is not 8-bit RGB, as Pillow names it; else None.
        misnamed: format of an image whose file name says another; else None.
    """

    width: int
    height: int
    turned: bool
    converted_from: str | None
    misnamed: str | None


def inspect_image(path: Path, expected: tuple[int, int] | None) -> ImageFacts:
    """Open and decode a file (JPEG at an eighth of its size, which still reads every byte).

    Args:
        path: the image file.
        expected: (width, height) by the annotation file, to decide whether EXIF orientation
            applies.

    Raises:
        BrokenImage: the file cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            size, mode, kind = image.size, image.mode, image.format or ""
            turned = _is_turned(image, expected)
            if kind == "JPEG":
                image.draft(None, (size[0] // 8, size[1] // 8))
                image.load()
            elif mode != "RGB":
                to_rgb(image)
            else:
                image.load()
    except _UNREADABLE as error:
        raise BrokenImage(_reason(error)) from None
    transposed = turned and _orientation(image) >= 5
    width, height = (size[1], size[0]) if transposed else size
    misnamed = kind if kind in _SUFFIXES and path.suffix.lower() not in _SUFFIXES[kind] else None
    return ImageFacts(width, height, turned, None if mode == "RGB" else mode, misnamed)


def inspect_images(
    files: Sequence[tuple[Path, tuple[int, int] | None]],
) -> Iterator[ImageFacts | BrokenImage]:
    """Inspect many files, in threads: decoding leaves the interpreter.

    Args:
        files: path and expected (width, height) of each, as `inspect_image` takes them.

    Yields:
        For each file, in order, what it holds or why it cannot be decoded.
    """

    def inspect(file: tuple[Path, tuple[int, int] | None]) -> ImageFacts | BrokenImage:
        try:
            return inspect_image(*file)
        except BrokenImage as error:
            return error

    with ThreadPool() as pool:
        yield from pool.imap(inspect, files, chunksize=16)


@contextmanager
def broken_image_as_data_error(path: Path) -> Iterator[None]:
    """Turn a `BrokenImage` of the block into an error about a data set that changed under way.

    Raises:
        DataError: the image cannot be decoded, though it could when the data set was checked.
    """
    try:
        yield
    except BrokenImage as error:
        raise DataError(
            f"image {str(path)!r} was sound when the data set was checked, and is not now: {error}"
        ) from None


def read_rgb(path: Path, expected: tuple[int, int] | None) -> Image.Image:
    """Read an image as 8-bit RGB, upright.

    Args:
        path: the image file.
        expected: (width, height) by the annotation file, to decide whether EXIF orientation
            applies; None: it does.

    Raises:
        BrokenImage: the file cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            turned = _is_turned(image, expected)
            rgb = to_rgb(image)
    except _UNREADABLE as error:
        raise BrokenImage(_reason(error)) from None
    if not turned:
        return rgb
    rgb.getexif()[_ORIENTATION] = _orientation(image)
    return ImageOps.exif_transpose(rgb)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to 8-bit RGB; 16-bit values 0 to 65535 map to 0 to 255.

    Raises:
        ValueError: floating point pixels, or integers beyond 16 bits, which have no natural scale.
    """
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"pixel values outside 0 to 65535 (mode {image.mode})")
        image = Image.fromarray((values / 257).round().astype(np.uint8))
    elif image.mode == "F":
        raise ValueError(
            "floating point pixels (mode F) have no natural scale: save as 8 or 16 bit"
        )
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    value = image.getexif().get(_ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def _is_turned(image: Image.Image, expected: tuple[int, int] | None) -> bool:
    orientation = _orientation(image)
    transposed = image.size[::-1] if orientation >= 5 else image.size
    return orientation > 1 and not (expected == image.size != transposed)


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, UnidentifiedImageError):
        return "is not an image"
    if isinstance(error, FileNotFoundError):
        return "is missing"
    return text or type(error).__name__
