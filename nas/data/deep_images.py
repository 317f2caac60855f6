"""Images of more than 8 bits a channel: which they are, and how they become 8 bits.

A file of 16 bits often holds fewer: a sensor's 10, 12 or 14. Scaled by 65535 they would be nearly
black, so all images of a data set are scaled by its white level: the largest value of the least
depth that holds its brightest pixel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.data.image_files import opened_image

DEPTHS = (8, 10, 12, 14, 16)  # bits
DEEPEST = 2**16 - 1
_BIT_DEPTH = 24  # byte of a PNG file that says it (PNG specification, section 11.2.1)


def white_level(brightest: int) -> int:
    """Give the largest value of the least depth that has `brightest`: 255, 1023, 4095, 16383 or
    65535.
    """
    depth = next(depth for depth in DEPTHS if brightest < 1 << depth)
    return (1 << depth) - 1


def deep_values(image: Image.Image, path: Path) -> NDArray[Any] | None:
    """Give the values of an image of more than 8 bits, [H, W] or [H, W, 3], as the file has them;
    None for an image of 8.

    Args:
        image: opened.
        path: its file.

    Raises:
        ValueError: integers beyond 16 bits, or below 0.
    """
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > DEEPEST:
            raise ValueError(f"pixel values outside 0 to {DEEPEST} (mode {image.mode})")
        return values
    return _png_values(path) if image.format == "PNG" and _is_deep_png(path) else None


def as_eight_bits(values: NDArray[Any], white: int) -> Image.Image:
    """Scale values 0 to `white` to 0 to 255, as RGB; brighter ones are 255."""
    scaled = np.minimum(np.arange(DEEPEST + 1) / white, 1.0) * 255
    return Image.fromarray(scaled.round().astype(np.uint8)[values]).convert("RGB")


def _is_deep_png(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(_BIT_DEPTH + 1)[_BIT_DEPTH:] == b"\x10"


def _png_values(path: Path) -> NDArray[Any]:
    """Colours of 16 bits, the upper byte first: Pillow's unpackers give either byte, not both."""
    upper, lower = (_bytes(path, order).astype(np.uint16) for order in "BL")
    values: NDArray[Any] = (upper << 8) | lower
    return values


def _bytes(path: Path, order: str) -> NDArray[Any]:
    """The upper byte of each value [H, W, 3] if the file's order is `B`, big-endian, which it is;
    taken for little-endian, `L`, the lower one.
    """
    with opened_image(path) as image:
        image.tile = [
            tile._replace(args=str(tile.args).replace("16B", f"16{order}")) for tile in image.tile
        ]
        return np.asarray(image)[..., :3]
