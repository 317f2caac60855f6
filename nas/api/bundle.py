"""A bundle as a notebook uses it: what it says of itself, predictions, scores."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.api.evaluation import BundleScore, score_bundle
from nas.api.prediction import Predictor
from nas.api.requests import check_bundle
from nas.export.bundle import read_description
from nas.utils.html_table import html_table

if TYPE_CHECKING:
    from nas.evaluation.detections import ImageDetections
    from nas.export.description import Trained


class Bundle:
    """A trained detector in a folder.

    Args:
        folder: as `nas-export` and `nas train` write it.

    Raises:
        UserError: there is no bundle, or it is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        check_bundle(self.folder)
        self.trained: Trained = read_description(self.folder)

    @property
    def layout(self) -> str:
        """Its backbone, `C2-C2-T12-T4`."""
        return str(self.trained.layout)

    @property
    def categories(self) -> tuple[str, ...]:
        """Names of the classes, label 1 first."""
        return self.trained.categories

    @property
    def figures(self) -> dict[str, Any]:
        """Scores (fractions 0 to 1), sizes and times; units are in the names."""
        return self.trained.figures

    @cached_property
    def _predictor(self) -> Predictor:
        return Predictor(self.folder)

    def predict(self, images: Sequence[Any], score: float = 0.3) -> list[ImageDetections]:
        """Find objects in images.

        Args:
            images: paths, images of Pillow, or arrays [H, W, 3] of uint8.
            score: what has a lower one is left out, 0 to 1.
        """
        return [found.above(score) for found in self._predictor(images)]

    def evaluate(self, data: str | Path, split: str = "val") -> BundleScore:
        """Score the detector on a data set with its categories; see `nas.evaluate`."""
        return score_bundle(self.folder, str(data), split, lambda *_: None)

    def __repr__(self) -> str:
        return f"Bundle({str(self.folder)!r}, {self.layout}, {self.trained.detector.name})"

    def _repr_html_(self) -> str:
        """What it is, as a notebook shows it."""
        known = {"layout": self.layout, "detector": self.trained.detector.name}
        known["categories"] = ", ".join(self.categories)
        plain = {
            name: f"{value:.4g}" if isinstance(value, float) else str(value)
            for name, value in self.figures.items()
            if isinstance(value, (int, float, str))
        }
        return html_table(("", ""), [*known.items(), *plain.items()], str(self.folder))
