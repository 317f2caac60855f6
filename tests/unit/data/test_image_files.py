"""What is opened as an image, and what only calls itself one."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.data.image_files import FORMATS, opened_image
from nas.data.image_io import BrokenImage, inspect_image, read_rgb
from search_spaces.regular_files import read_regular

PIXELS = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
PROGRAM = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 60\n{1 1 add pop} loop\n"


@pytest.mark.parametrize("name", [n for n in FORMATS if n != "HEIF"])
def test_formats_of_pixels_are_opened(tmp_path: Path, name: str):
    path = tmp_path / "image"
    Image.fromarray(PIXELS).save(path, format="BMP" if name == "DIB" else name)
    with opened_image(path) as image:
        assert image.size == (8, 8)
    with opened_image(path.read_bytes()) as image:
        assert image.convert("RGB").size == (8, 8)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".eps"])
def test_a_program_is_no_image_and_is_not_run(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / f"00001{suffix}"
    path.write_bytes(PROGRAM)
    for name in ("run", "Popen", "call", "check_call", "check_output"):
        monkeypatch.setattr(subprocess, name, lambda *_, **__: pytest.fail("a program was run"))
    for read in (lambda: inspect_image(path, None), lambda: read_rgb(path, None)):
        with pytest.raises(BrokenImage, match=r"^is EPS, a program, which is not read"):
            read()


def test_other_formats_of_pillow_are_named(tmp_path: Path):
    path = tmp_path / "page.jpg"
    path.write_bytes(b"%PDF-1.7\n")
    with pytest.raises(BrokenImage, match="is PDF, which is not read"):
        inspect_image(path, None)


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path):
    pipe, door = tmp_path / "pipe.jpg", tmp_path / "door.jpg"
    os.mkfifo(pipe)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(door) if len(str(door)) > 100 else str(door))
        for path in (pipe, door, Path("/dev/zero")):
            with pytest.raises(OSError, match=r"regular file|such device|No such"):
                read_regular(path)
            for read in (lambda p: inspect_image(p, None), lambda p: read_rgb(p, None)):
                with pytest.raises(BrokenImage):
                    read(path)
