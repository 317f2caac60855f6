"""Makes the pictures of README.md in a real browser: a study as the dashboard shows it, the best
layout, and what that found in an image.

python docs/pictures.py bccd

The search is that of docs/blood-cells.ipynb, run in build/pictures; once it is there, it is not
made again. The machine needs chromium.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "docs" / "blood-cells.ipynb"
FIGURES = ROOT / "docs" / "figures"
WORK = ROOT / "build" / "pictures"
SCREEN = {"width": 1200, "height": 900}
NARROW = {"width": 800, "height": 600}
PLOTS, SHOWN = 8, 4  # plots of a study; the first of them are in the picture
MARGIN = 16  # pixels
COLOURS = 64  # of a drawing, which keeps its file small
QUALITY = 85  # of a photograph


def main(data: str) -> None:
    WORK.mkdir(parents=True, exist_ok=True)
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    environment = os.environ | {"NAS_DATA": str(Path(data).resolve())}
    words = [sys.executable, "-c", "\n".join(code)]
    subprocess.run(words, cwd=WORK, env=environment, check=True)
    with dashboard(f"sqlite:///{WORK}/nas.db") as address, browser() as chromium:
        photograph(chromium.new_page(), address, FIGURES)


@contextmanager
def dashboard(storage: str) -> Iterator[str]:
    """The address that the command prints, which logs in."""
    words = [str(Path(sys.executable).parent / "nas-dashboard"), "--storage", storage, "--port=0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().split()[0]
        finally:
            process.terminate()


@contextmanager
def browser() -> Iterator[Any]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=arguments)


def photograph(tab: Any, address: str, out: Path) -> None:
    """Look at the only study of a dashboard, and at its best trial."""
    tab.set_viewport_size(NARROW)
    tab.goto(address)
    tab.click("text=Plots, note and trials")
    keep_drawing(tab.locator("figure.layout").screenshot(), out / "layout.png")
    tab.set_viewport_size(SCREEN)
    tab.reload()
    tab.locator("figure.plot .main-svg:first-child").nth(PLOTS - 1).wait_for()
    keep_drawing(tab.screenshot(full_page=True, clip=plots(tab)), out / "dashboard.png")
    tab.locator("table").first.locator("tbody a").first.click()
    picture = tab.locator("figure img").first
    picture.scroll_into_view_if_needed()
    source = picture.evaluate("image => image.decode().then(() => image.src)")
    found = Image.open(io.BytesIO(tab.request.get(source).body()))
    found.convert("RGB").save(out / "detections.jpg", quality=QUALITY, optimize=True)


def plots(tab: Any) -> dict[str, float]:
    """Where the first plots and their heading are on the page."""
    tab.evaluate("scrollTo(0, 0)")
    top = tab.locator("h2", has_text="Plots").bounding_box()["y"] - MARGIN
    last = tab.locator("figure.plot").nth(SHOWN - 1).bounding_box()
    height = last["y"] + last["height"] + MARGIN - top
    return {"x": 0, "y": top, "width": SCREEN["width"], "height": height}


def keep_drawing(content: bytes, path: Path) -> None:
    Image.open(io.BytesIO(content)).convert("RGB").quantize(COLOURS).save(path, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
