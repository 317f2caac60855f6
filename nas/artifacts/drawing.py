"""Matplotlib, as all pictures need it: without a screen, and without the settings that a file in
the user's folder may hold, which can be a data set of others.
"""

from __future__ import annotations

import io
import sys
import warnings
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from nas.utils.working_folder import outside_working_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure() -> Figure:
    """Make an empty figure of 11 by 7 inches."""
    _import_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(11, 7), layout="constrained")


def _import_matplotlib() -> ModuleType:
    """Import it, the first time away from the user's folder: later it reads no settings."""
    with nullcontext() if "matplotlib" in sys.modules else outside_working_folder():
        return import_module("matplotlib")


def png_of(figure: Figure, dots_per_inch: int = 100) -> bytes:
    """Draw a figure as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    written = io.BytesIO()
    figure.set_dpi(dots_per_inch)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # of scripts that Matplotlib's font has not
        FigureCanvasAgg(figure).print_png(written)
    return written.getvalue()


def font_file() -> str:
    """Path of Matplotlib's own font: Pillow's has only Latin letters."""
    return str(Path(_import_matplotlib().get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
