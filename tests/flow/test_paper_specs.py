"""The paper's runs as files: each says what the paper says, and trains."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml

from nas.api.requests import training_request
from nas.artifacts.paths import LOG
from nas.config.choices import DetectorName
from nas.config.spec import SearchSpec, load_spec
from nas.data.splits import Splits, read_data
from nas.errors import LayoutError, SpecError
from nas.models.backbones import build_backbone
from nas.training.candidate import Candidate, train_candidate
from search_spaces.layout import Layout, Stage, doubled

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "examples" / "paper"
FILES = sorted(FOLDER.glob("*.yaml"), key=lambda path: path.stem)
TABLES = yaml.safe_load((ROOT / "nas" / "profiling" / "paper_tables.yaml").read_text())
ROWS = [
    (number, row, content)
    for number, table in TABLES.items()
    for row, content in enumerate(table["rows"], start=1)
    if content["trained"] != "not in the paper"
]
HEADER = re.compile(
    r"# (?P<places>(?:(?:Table \d, row \d+|Figure \d)(?:; )?)+): mAP (?P<map>[\d.]+|not printed)\."
)
TINY = {
    "recipe.epochs": 1,
    "recipe.image_size": 64,
    "recipe.batch": 2,
    "recipe.images_per_gpu": 2,
    "detector.channels": 32,
    "detector.hidden": 64,
}
TRAIN_IMAGES, VAL_IMAGES, STEPS = 4, 2, 2


@cache
def read(path: Path) -> tuple[str, str, dict[str, Any]]:
    """Places in the paper, printed mAP, keys."""
    text = path.read_text()
    header = HEADER.fullmatch(text.splitlines()[0])
    assert header, path
    return header["places"], header["map"], yaml.safe_load(text)


def detector_of(written: dict[str, Any]) -> str:
    detector = written["detector"]
    return detector if isinstance(detector, str) else detector["name"]


def needs(detector: str) -> None:
    if detector not in get_args(DetectorName):
        pytest.skip(f"there is no detector {detector} yet")


def spec_of(path: Path) -> tuple[Layout, SearchSpec]:
    """As written."""
    keys = dict(read(path)[2])
    layout = keys.pop("layout")
    return Layout.parse(layout), load_spec(keys, {"data.root": "coco"})


def tiny(layout: Layout) -> Layout:
    stages = [
        Stage(stage.kind, 1, width) for stage, width in zip(layout.stages, doubled(16), strict=True)
    ]
    return replace(layout, stages=tuple(stages), stem_width=None)


@pytest.fixture(scope="module")
def splits(digits: Path) -> Splits:
    spec = load_spec(None, {"data.root": str(digits)})
    (train, val, _), _ = read_data(spec.data, spec.recipe)
    return Splits(
        train.subset(TRAIN_IMAGES / len(train.images)), val.subset(VAL_IMAGES / len(val.images))
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_trains(path: Path, digits: Path, splits: Splits, tmp_path: Path):
    written = read(path)[2]
    needs(detector_of(written))
    flags: dict[str, Any] = {**TINY, "data.root": str(digits)}
    shrunk = tiny(Layout.parse(written["layout"]))
    started = "weights" in written["recipe"]
    if started:
        flags["recipe.weights"] = str(tmp_path / "weights.pt")
        torch.save(build_backbone(shrunk).state_dict(), tmp_path / "weights.pt")
    layout, spec = training_request(str(path), flags)
    recipe = spec.recipe.model_copy(
        update={"train_sizes": tuple(size // 10 for size in spec.recipe.train_sizes)}
    )
    assert tiny(layout) == shrunk
    steps: list[int] = []
    candidate = Candidate(shrunk, spec.detector, recipe, spec.calibration, 10, 0, tmp_path / "run")
    (report,) = train_candidate(
        candidate, splits.train, splits.val, on_step=lambda step, of, loss: steps.append(step)
    )
    assert len(steps) == STEPS
    assert math.isfinite(report.loss)
    assert (report.calibration is None) == (
        started or written.get("calibration") == {"enabled": False}
    )
    if started:
        first = json.loads((tmp_path / "run" / LOG).read_text().splitlines()[0])
        assert re.match(r"taken over (\d+) of \1 tensors", first["weights"])


@pytest.mark.parametrize(
    ("table", "row", "printed"), ROWS, ids=[f"{table}-{row}" for table, row, _ in ROWS]
)
def test_every_row_of_the_tables_has_one_file_that_agrees(
    table: int, row: int, printed: dict[str, Any]
):
    place = f"Table {table}, row {row}"
    (path,) = [path for path in FILES if place in read(path)[0].split("; ")]
    assert float(read(path)[1]) == printed["map"]
    assert detector_of(read(path)[2]) == printed["detector"]
    needs(printed["detector"])
    layout, spec = spec_of(path)
    assert layout == Layout.parse(printed["layout"])
    assert spec.detector.roi_op == printed.get("roi_op", "align")
    assert (spec.recipe.weights is None) == (printed["trained"] == "scratch")
    assert (
        spec.recipe.name
        == {1: "paper-24", 2: "paper-24", 3: "paper", 4: "paper", 5: "paper-sota"}[table]
    )
    if printed["trained"] == "scratch":
        assert spec.calibration.enabled == (table > 2)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_sparse_rcnn_has_its_own_rate_and_clipping(path: Path):
    detector = detector_of(read(path)[2])
    needs(detector)
    recipe = spec_of(path)[1].recipe
    published = (2.5e-5, 1.0) if detector == "sparse_rcnn" else (1e-4, None)
    assert (recipe.lr, recipe.clip_norm) == published


def test_no_two_files_are_the_same_run():
    runs = {json.dumps(read(path)[2], sort_keys=True) for path in FILES}
    assert len(runs) == len(FILES)


def test_the_index_has_every_file_once():
    rows = [
        line.split(" | ")
        for line in (FOLDER / "README.md").read_text().splitlines()
        if line.startswith("| [")
    ]
    said = [(re.search(r"\((.*)\)", row[0])[1], *row[1:4]) for row in rows]
    expected = [(path.name, *read(path)[:2], read(path)[2]["layout"]) for path in FILES]
    assert said == [
        (name, places, value.replace("not printed", "-"), layout)
        for name, places, value, layout in expected
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("detector: fcos", "must name what to train.*got None"),
        ("layout: [C2]", "must name what to train"),
        ("layout: C2", "4 stages"),
    ],
)
def test_files_that_name_no_layout(tmp_path: Path, digits: Path, content: str, words: str):
    (tmp_path / "run.yaml").write_text(content)
    with pytest.raises((SpecError, LayoutError), match=words):
        training_request(str(tmp_path / "run.yaml"), {"data.root": str(digits)})


def test_a_search_refuses_them():
    with pytest.raises(SpecError, match="for `nas train FILE`"):
        load_spec(FILES[0], {"data.root": "x"})
