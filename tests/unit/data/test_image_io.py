"""Whatever people keep as an image becomes upright 8-bit RGB, or says why not."""

from __future__ import annotations

import struct
import zlib
from contextvars import ContextVar
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.data.deep_images import white_level
from nas.data.image_io import MOST_PAGES, BrokenImage, inspect_image, read_rgb

ORIENTATION = 0x0112


def gradient(height: int = 40, width: int = 60) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 5, columns * 4, np.full_like(rows, 90)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1", "CMYK"])
def test_modes_become_rgb(tmp_path: Path, mode: str):
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    Image.fromarray(gradient()).convert(mode).save(path)
    facts = inspect_image(path, (60, 40))
    assert (facts.width, facts.height, facts.turned) == (60, 40, False)
    assert facts.converted_from == (None if mode == "RGB" else mode)
    image = read_rgb(path, (60, 40))
    assert (image.mode, image.size) == ("RGB", (60, 40))
    if mode in ("RGB", "RGBA"):
        assert np.array_equal(np.asarray(image), gradient())


def test_sixteen_bits_keep_their_range(tmp_path: Path):
    path = tmp_path / "depth.png"
    values = np.array([[0, 257, 32768], [65535, 128 * 257, 514]], dtype=np.uint16)
    Image.fromarray(values).save(path)
    facts = inspect_image(path, None)
    assert (facts.converted_from, facts.brightest) == ("I;16", 65535)
    assert np.asarray(read_rgb(path, None))[..., 0].tolist() == [[0, 1, 128], [255, 128, 2]]


def test_twelve_of_sixteen_bits_are_scaled_by_the_white_level(tmp_path: Path):
    path = tmp_path / "sensor.png"
    values = np.array([[0, 2048, 4095], [16, 3000, 5000]], dtype=np.uint16)
    Image.fromarray(values).save(path)
    found = np.asarray(read_rgb(path, None, white_level=4095))[..., 1].tolist()
    assert found == [[0, 128, 255], [1, 187, 255]]  # by 255 / 4095


@pytest.mark.parametrize("suffix", ["", "alpha"])
def test_colours_of_sixteen_bits_are_not_cut_to_eight(tmp_path: Path, suffix: str):
    path = tmp_path / "colours.png"
    values = np.arange(2 * 3 * 3, dtype=np.uint16).reshape(2, 3, 3) * 240
    write_png_16(path, values, alpha=bool(suffix))
    facts = inspect_image(path, None)
    assert facts.brightest == 17 * 240
    assert facts.converted_from == ("RGBA" if suffix else "RGB") + ", 16 bits"
    found = np.asarray(read_rgb(path, None, white_level=4095))
    assert np.array_equal(found, (values / 4095 * 255).clip(max=255).round())


def write_png_16(path: Path, values: np.ndarray, *, alpha: bool) -> None:
    """A PNG of 16 bits a channel (PNG specification, sections 5 and 9), which Pillow cannot
    write.
    """
    height, width, _ = values.shape
    if alpha:
        values = np.concatenate([values, np.full((height, width, 1), 65535, np.uint16)], axis=2)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 6 if alpha else 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        content += struct.pack(">I", len(data)) + kind + data + checksum
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("brightest", "white"),
    [(0, 255), (255, 255), (256, 1023), (1023, 1023), (3921, 4095), (4096, 16383), (65535, 65535)],
)
def test_the_white_level_is_that_of_the_least_depth(brightest: int, white: int):
    assert white_level(brightest) == white


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (3, 400), (7, 7), (400, 2)])
def test_very_narrow_jpegs_are_read(tmp_path: Path, size: tuple[int, int]):
    path = tmp_path / "narrow.jpg"
    Image.new("RGB", size, (200, 10, 10)).save(path)
    facts = inspect_image(path, None)
    assert (facts.width, facts.height) == size
    assert read_rgb(path, None).size == size


@pytest.mark.parametrize("suffix", ["tif", "gif", "png", "webp"])
def test_of_several_pages_the_first_is_used(tmp_path: Path, suffix: str):
    path = tmp_path / f"pages.{suffix}"
    pages = [Image.new("RGB", (20, 10), (80 * number, 0, 0)) for number in range(3)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    assert inspect_image(path, None).pages == 3
    assert np.asarray(read_rgb(path, None)).max() <= 4  # the first is black


def test_of_thousands_of_pages_a_hundred_are_counted(tmp_path: Path):
    path = tmp_path / "pages.tif"
    page = Image.new("L", (8, 8))
    page.save(path, save_all=True, append_images=[page] * 150)
    assert inspect_image(path, None).pages == MOST_PAGES == 100


def test_a_scene_is_read_and_more_than_that_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "scene.png"
    Image.new("1", (15_000, 12_500)).save(path)  # Pillow's own limit is 178,956,970 pixels
    assert inspect_image(path, None).width == 15_000
    monkeypatch.setattr("nas.data.image_io._limit", ContextVar("limit", default=10**6))
    with pytest.raises(BrokenImage, match="has 15000 x 12500 pixels, more than the 1,000,000"):
        read_rgb(path, None)


def test_heic_is_named(tmp_path: Path):
    path = tmp_path / "phone.jpg"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    with pytest.raises(BrokenImage, match="is HEIC, which is not read: convert it"):
        inspect_image(path, None)
    path.write_bytes(b"")
    with pytest.raises(BrokenImage, match="is empty"):
        inspect_image(path, None)


@pytest.mark.parametrize(
    "fault", [IndexError("x"), ZeroDivisionError(), MemoryError(), KeyError(1)]
)
def test_whatever_a_decoder_raises_names_the_file_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
):
    path = tmp_path / "image.png"
    Image.fromarray(gradient()).save(path)

    def broken(self: Image.Image) -> None:
        raise fault

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", broken)
    with pytest.raises(BrokenImage):
        inspect_image(path, None)
    with pytest.raises(BrokenImage):
        read_rgb(path, None)


def test_floating_point_has_no_scale(tmp_path: Path):
    path = tmp_path / "float.tif"
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(path)
    with pytest.raises(BrokenImage, match="floating point"):
        inspect_image(path, None)


def save_turned(path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(gradient()).save(path, exif=exif, quality=100, subsampling=0)


# What each EXIF value says of the stored pixels, by the standard: a slow, obvious version.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int):
    path = tmp_path / "photo.jpg"
    save_turned(path, orientation)
    expected = UPRIGHT[orientation](gradient())
    size = (expected.shape[1], expected.shape[0])
    facts = inspect_image(path, size)
    assert (facts.width, facts.height) == size
    assert facts.turned is (orientation != 1)
    difference = np.asarray(read_rgb(path, size)).astype(int) - expected
    assert np.abs(difference).max() <= 6  # JPEG at quality 100


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_exif_is_ignored_where_only_the_stored_size_agrees(tmp_path: Path, orientation: int):
    path = tmp_path / "photo.jpg"
    save_turned(path, orientation)
    facts = inspect_image(path, (60, 40))
    assert (facts.width, facts.height, facts.turned) == (60, 40, False)
    assert read_rgb(path, (60, 40)).size == (60, 40)


def test_a_png_named_jpg_is_read_and_told(tmp_path: Path):
    path = tmp_path / "image.jpg"
    Image.fromarray(gradient()).save(path, format="PNG")
    assert inspect_image(path, (60, 40)).misnamed == "PNG"
    assert read_rgb(path, (60, 40)).size == (60, 40)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty"), (b"not an image at all", "not an image"), (None, "is missing")],
)
def test_what_is_no_image(tmp_path: Path, content: bytes | None, words: str):
    path = tmp_path / "image.jpg"
    if content is not None:
        path.write_bytes(content)
    for read in (inspect_image, read_rgb):
        with pytest.raises(BrokenImage, match=words):
            read(path, None)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_half_an_image_is_broken(tmp_path: Path, suffix: str):
    path = tmp_path / f"image{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 80, 3)).astype(np.uint8)).save(
        path
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for read in (inspect_image, read_rgb):
        with pytest.raises(BrokenImage):
            read(path, None)
