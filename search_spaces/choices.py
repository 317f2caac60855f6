"""Names that a layout may use: kinds of stages, stems and normalisation layers."""

from __future__ import annotations

KINDS = ("C", "T")
STEMS = ("auto", "resnet", "patch", "dsod")
NORMS = ("bn", "gn", "syncbn")
