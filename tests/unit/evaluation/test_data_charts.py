"""Charts of a data set, whatever its classes are called."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from nas.data.box_table import Box, BoxTable
from nas.data.coco import CocoSplit, ImageRecord
from nas.evaluation.data_charts import charts


@pytest.mark.parametrize("name", [r"$\foo{$", "$", "a_b^c", "é" * 100, "\n\t", "\u4e2d\u6587"])
def test_names_are_no_formulas(name: str):
    """Matplotlib sets what stands between dollars, and fails where it is no formula."""
    boxes = BoxTable.of([Box(1, 1, 3, (1.0, 1.0, 20.0, 10.0), 200.0, 0)])
    split = CocoSplit(Path(), (ImageRecord(1, "a.png", 64, 48),), boxes, ((3, name),))
    with Image.open(io.BytesIO(charts(split))) as picture:
        assert picture.size == (1210, 770)
