"""Matplotlib, as all pictures need it: without a screen, and without the settings that a file in
the user's folder may hold, which can be a data set of others.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from nas.utils.working_folder import outside_working_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure() -> Figure:
    """Make an empty figure of 11 by 7 inches."""
    with outside_working_folder():
        from matplotlib.figure import Figure

    return Figure(figsize=(11, 7), layout="constrained")


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
    with outside_working_folder():
        import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
