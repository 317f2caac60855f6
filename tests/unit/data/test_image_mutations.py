"""Image files with changed, missing and repeated bytes: read, or named as broken."""

from __future__ import annotations

import io
import random
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers.mutations import number_of_times
from PIL import Image, features

from nas.data.image_io import BrokenImage, inspect_image, read_rgb

FORMATS = ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "AVIF"]


def encoded(form: str, deep: bool) -> bytes:
    rng = np.random.default_rng(0)
    shape, kind = ((24, 31), np.uint16) if deep else ((24, 31, 3), np.uint8)
    pixels = rng.integers(0, 255, shape).astype(kind)
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, format=form, exif=b"" if deep else exif())
    return written.getvalue()


def exif() -> bytes:
    found = Image.Exif()
    found[0x0112] = 6
    return found.tobytes()


def mutated(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        at = rng.randrange(max(1, len(changed)))
        what = rng.randrange(5)
        if what == 0:
            changed[at : at + 1] = bytes([rng.randrange(256)])
        elif what == 1:
            del changed[at:]
        elif what == 2:
            changed[at:at] = changed[at : at + rng.randrange(64)]
        elif what == 3:
            changed[at : at + 4] = rng.choice(
                [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"]
            )
        else:
            del changed[at : at + rng.randrange(16)]
        if not changed:
            break
    return bytes(changed)


@number_of_times(25, 2500)
@pytest.mark.parametrize("form", FORMATS)
def test_any_bytes_are_read_or_named(tmp_path: Path, form: str, times: int):
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    rng, path, outcomes = random.Random(form), tmp_path / "a.bin", set()
    contents = [encoded(form, deep=False)]
    contents += [encoded(form, deep=True)] if form in ("PNG", "TIFF", "PPM") else []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(times):
            path.write_bytes(mutated(rng.choice(contents), rng))
            for act in (inspect_image, read_rgb):
                try:
                    act(path, (31, 24))
                    outcomes.add("read")
                except BrokenImage as error:
                    outcomes.add("named" if str(error) else "not named")
    assert outcomes <= {"read", "named"}
    assert "named" in outcomes


def test_a_header_that_promises_too_much(tmp_path: Path):
    """21,000 x 21,000 pixels in 2,000 bytes would be 1.3 GB."""
    content = bytearray(encoded("PNG", deep=False))
    content[16:24] = (21_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(
        BrokenImage, match=r"says that it has 21000 x 21000 pixels, in [\d,]+ bytes"
    ):
        inspect_image(tmp_path / "a.png", None)


def test_a_large_plain_image_is_read(tmp_path: Path):
    Image.new("1", (9000, 8000)).save(tmp_path / "a.png", optimize=True)
    assert (tmp_path / "a.png").stat().st_size < 12_000
    assert inspect_image(tmp_path / "a.png", None).width == 9000
