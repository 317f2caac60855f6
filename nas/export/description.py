"""A trained candidate, as a bundle describes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nas.config.recipe import Recipe
from nas.config.spec import CalibrationSpec, DetectorSpec
from search_spaces.layout import Layout


@dataclass(frozen=True)
class Trained:
    """What a bundle is made of. `figures`, `origin` and `request` are plain JSON: what people will
    read of it, and all that was asked for.
    """

    layout: Layout
    detector: DetectorSpec
    recipe: Recipe
    calibration: CalibrationSpec
    categories: tuple[str, ...]
    figures: dict[str, Any]
    origin: dict[str, Any]
    request: dict[str, Any] = field(default_factory=dict)
