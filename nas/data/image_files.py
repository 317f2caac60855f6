"""Opening image files: of formats that hold pixels alone, from regular files.

Pillow knows others: of EPS it runs the program that the file is.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from PIL import Image, ImageFile

from search_spaces.regular_files import open_regular

# HEIF where a plug-in of Pillow has it. JPEG brings MPO, a camera's several pictures in a file.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_UNREAD = {
    b"%!PS": "is EPS, a program, which is not read: convert it to PNG",
    b"\xc5\xd0\xd3\xc6": "is EPS, a program, which is not read: convert it to PNG",
    b"%PDF": "is PDF, which is not read: convert its pages to PNG",
    b"8BPS": "is a Photoshop file, which is not read: save it as PNG",
}
_HEIC = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1", b"ftypmsf1")  # from the fifth byte on


@contextmanager
def opened_image(source: Path | bytes) -> Iterator[ImageFile.ImageFile]:
    """Open an image of one of `FORMATS`; its pixels are decoded when they are asked for.

    Args:
        source: the file, or its bytes.

    Raises:
        OSError: there is no such file, it is no regular one, or no image of these formats.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else open_regular(source)
    with file, Image.open(file, formats=_known()) as image:
        yield image


@cache
def _known() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def unread_format(beginning: bytes) -> str | None:
    """Say what a file is that `opened_image` does not know, by its first 12 bytes; None of any that
    is not known either.
    """
    if beginning[4:].startswith(_HEIC):
        return "is HEIC, which is not read: convert it to JPEG or PNG"
    return next((said for mark, said in _UNREAD.items() if beginning.startswith(mark)), None)
