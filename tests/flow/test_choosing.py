"""The figures of docs/choosing.md are those of the commands beside them."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

import nas
from nas.config.choices import MASK_DETECTORS, DetectorName
from nas.config.sections import DetectorSpec
from nas.planning.levels import RATIOS, finest_stride
from nas.utils.formatting import GIB
from nas.utils.gpu_share import card_share_bytes
from search_spaces.loading import load_space

PAGE = (Path(__file__).parent.parent.parent / "docs" / "choosing.md").read_text()


def table(first: str) -> list[list[str]]:
    """Cells of the table whose header has these words, row by row; the first row is the header."""
    (lines,) = (block for block in PAGE.split("\n\n") if first in block.partition("\n")[0])
    rows = [line.strip("|").split("|") for line in lines.splitlines() if "---" not in line]
    return [[cell.strip(" `") for cell in row] for row in rows]


def test_every_detector_is_told_as_it_is():
    header, *rows = table("finest stride")
    assert {row[0] for row in rows} == set(get_args(DetectorName))
    for name, stride, masks, *_ in rows:
        assert int(stride) == finest_stride(DetectorSpec(name=name))
        assert bool(masks) == (name in MASK_DETECTORS)
    column = header.index("anchors by the data")
    assert {row[0] for row in rows if row[column]} == set(RATIOS)


def test_spaces_have_as_many_layouts():
    _, *rows = table("| space | layouts |")
    for name, layouts, _ in rows[:-1]:
        assert len(load_space(name)) == int(layouts.replace(",", ""))


def test_cards_hold_the_budget_and_its_margin():
    _, *rows = table("card, with the margin")
    for budget, card, *_ in rows:
        wanted = card_share_bytes(int(budget.split()[0]) * GIB) / GIB
        assert float(card.split()[0]) == pytest.approx(wanted + 0.05, abs=0.051)  # rounded up


@pytest.mark.long
def test_predicted_memory_is_that_of_nas_profile():
    header, *rows = table("GiB at the peak | T2-T2-T6-T2")
    layouts = [cell.partition(" ")[0] for cell in header[1:]]
    for detector, *figures in rows:
        for layout, figure in zip(layouts, figures, strict=True):
            found = nas.profile(layout, detector=detector).memory_predicted_gib
            assert float(figure) == pytest.approx(found, abs=0.051), (detector, layout)


@pytest.mark.long
def test_what_makes_room_is_that_of_nas_profile(nas_json):
    _, *rows = table("| | GiB at the peak | what it costs |")
    flags = {
        "fp32": [],
        "recipe.precision: bf16": ["--precision", "bf16"],
        "bf16 and `light": ["--precision", "bf16", "--checkpointing", "light"],
        "recipe.checkpointing: light": ["--checkpointing", "light"],
        "recipe.checkpointing: full": ["--checkpointing", "full"],
        "recipe.images_per_gpu: 2": ["--images", "2"],
        "recipe.images_per_gpu: 1": ["--images", "1"],
    }
    assert {row[0] for row in rows} == set(flags)
    for name, figure, _ in rows:
        words = ["profile", "C2-C2-T12-T4", "--detector", "faster_rcnn", *flags[name]]
        (found,) = nas_json(*words)
        assert float(figure) == pytest.approx(found["memory_predicted_gib"], abs=0.051), name
