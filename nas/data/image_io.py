"""Image files: what is in them, and how they become RGB.

A photograph may say in its EXIF data that it is to be turned. It is turned as viewers and
annotation tools do, unless only the unturned size agrees with the annotation file. Grey, palette,
alpha and CMYK images become 8-bit RGB; alpha is dropped. Images of more than 8 bits are scaled by
the white level of their data set (`nas.data.deep_images`).
"""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from nas.data.deep_images import DEEPEST, as_eight_bits, deep_values
from nas.data.image_files import opened_image, unread_format
from nas.data.pixel_budget import PixelBudget
from nas.errors import DataError
from search_spaces.regular_files import read_regular

_ORIENTATION = 0x0112
_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
}
ONE_PICTURE = {"MPO"}  # of a camera: a photograph, with a preview or a second view behind it
MISSING = "is missing"
DEEP = "has values of more than 8 bits"
LARGEST_PIXELS = 2**29  # of an image that is trained on, 1.5 GiB as RGB
LARGE_PIXELS = 2**26  # larger images must have bytes for them
MOST_PAGES = 100
DENSEST = 10_000  # pixels a byte: a black PNG of 1 bit has 8,000
SCENE_BYTES = 8  # memory for each pixel of one that is cut into tiles: RGB, and a decoder's own


_TOO_LARGE = "has {} x {} pixels, more than the {:,} that are read: cut it into tiles (nas tile)"
_AT_ONCE = PixelBudget(LARGEST_PIXELS // 4)  # of images that are looked into
_limit = ContextVar("largest image in pixels", default=LARGEST_PIXELS)
Image.MAX_IMAGE_PIXELS = None  # the limit is ours, which is said with a way out
# What matters of a file is a finding.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())


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
        pages: pages or frames of the file, of which the first is used; of a TIFF at most
            `MOST_PAGES` are counted.
        brightest: largest value of an image of more than 8 bits; else None.
        digest: hexadecimal digest of the file's bytes.
    """

    width: int
    height: int
    turned: bool
    converted_from: str | None
    misnamed: str | None
    pages: int = 1
    brightest: int | None = None
    digest: str = ""


def inspect_image(path: Path, expected: tuple[int, int] | None) -> ImageFacts:
    """Open and decode a file (JPEG at an eighth of its size, which still reads every byte).

    Args:
        path: the image file.
        expected: (width, height) by the annotation file, to decide whether EXIF orientation
            applies.

    Raises:
        BrokenImage: the file cannot be decoded.
    """
    content = _content(path)
    with (
        _opened(path, content) as image,
        _AT_ONCE.taken(image.width * image.height),
    ):
        size, mode, kind = image.size, image.mode, image.format or ""
        pages = _pages(image)
        turned = _is_turned(image, expected)
        deep = deep_values(image, path)
        if kind == "JPEG":
            image.draft(None, (max(1, size[0] // 8), max(1, size[1] // 8)))
        if deep is None:
            image.load() if mode == "RGB" else to_rgb(image)
    transposed = turned and _orientation(image) >= 5
    width, height = (size[1], size[0]) if transposed else size
    misnamed = kind if kind in _SUFFIXES and path.suffix.lower() not in _SUFFIXES[kind] else None
    converted = f"{mode}, 16 bits" if deep is not None and mode.startswith("RGB") else mode
    return ImageFacts(
        width,
        height,
        turned,
        None if converted == "RGB" else converted,
        misnamed,
        pages,
        None if deep is None else int(deep.max()),
        hashlib.blake2b(content, digest_size=16).hexdigest(),
    )


def _pages(image: ImageFile.ImageFile) -> int:
    """Pillow takes longer for each page of a TIFF than for the one before it."""
    if image.format in ONE_PICTURE:
        return 1
    if image.format != "TIFF":
        return int(getattr(image, "n_frames", 1))
    pages = 1
    with suppress(EOFError):
        while pages < MOST_PAGES:
            image.seek(pages)
            pages += 1
    image.seek(0)
    return pages


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

    threads = 1 if _limit.get() > LARGEST_PIXELS else None
    with ThreadPool(threads, _limit.set, (_limit.get(),)) as pool:
        yield from pool.imap(inspect, files, chunksize=16)


def largest_pixels() -> int:
    """Give the pixels of the largest image that is read just now (see `scenes`)."""
    return _limit.get()


@contextmanager
def scenes() -> Iterator[None]:
    """In the block, read images as large as this machine's memory holds, one at a time, to cut them
    into tiles.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    token = _limit.set(max(LARGEST_PIXELS, memory // SCENE_BYTES))
    try:
        yield
    finally:
        _limit.reset(token)


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


def read_rgb(
    path: Path, expected: tuple[int, int] | None, white_level: int | None = DEEPEST
) -> Image.Image:
    """Read an image as 8-bit RGB, upright.

    Args:
        path: the image file.
        expected: (width, height) by the annotation file, to decide whether EXIF orientation
            applies; None: it does.
        white_level: value of an image of more than 8 bits that becomes 255; None: such an image
            is refused.

    Raises:
        BrokenImage: the file cannot be decoded.
    """
    with _opened(path) as image:
        turned = _is_turned(image, expected)
        deep = deep_values(image, path)
        if deep is not None and white_level is None:
            raise ValueError(f"{DEEP}, up to {deep.max()}: --white-level says which is white")
        rgb = to_rgb(image) if deep is None else as_eight_bits(deep, white_level or DEEPEST)
        orientation = _orientation(image)
    if not turned:
        return rgb
    rgb.getexif()[_ORIENTATION] = orientation
    return ImageOps.exif_transpose(rgb)


def _content(path: Path) -> bytes:
    try:
        return read_regular(path)
    except (OSError, ValueError) as error:  # ValueError: no disk has a file of such a name
        raise BrokenImage(_reason(error, path)) from None


@contextmanager
def _opened(path: Path, content: bytes | None = None) -> Iterator[ImageFile.ImageFile]:
    """Open an image, or its bytes; whatever a decoder raises in the block says that the file is
    broken.
    """
    try:
        with opened_image(path if content is None else content) as image:
            _check_pixels(image, path.stat().st_size if content is None else len(content))
            yield image
    except Exception as error:
        raise BrokenImage(_reason(error, path)) from None


def _check_pixels(image: Image.Image, file_bytes: int) -> None:
    """Refuse what would take the machine's memory, before it is decoded."""
    pixels = image.width * image.height
    if pixels > _limit.get():
        raise ValueError(_TOO_LARGE.format(*image.size, _limit.get()))
    if pixels > LARGE_PIXELS and pixels > DENSEST * file_bytes:
        raise ValueError(
            f"says that it has {image.width} x {image.height} pixels, in {file_bytes:,} bytes"
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode of 8 bits to RGB.

    Raises:
        ValueError: floating point pixels, which have no natural scale.
    """
    if image.mode == "F":
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


def _reason(error: Exception, path: Path) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, UnidentifiedImageError):
        return _unidentified(path)
    if isinstance(error, FileNotFoundError):
        return MISSING
    return text or type(error).__name__


def _unidentified(path: Path) -> str:
    """Why Pillow does not know a file."""
    with path.open("rb") as file:
        beginning = file.read(12)
    return unread_format(beginning) or ("is not an image" if beginning else "is empty")
