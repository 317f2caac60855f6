"""What a person finds after `nas train`: curves and drawn images, also of a run that was
interrupted.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import Run, run_here
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from nas.api.callbacks import TrainingCallback
from nas.api.requests import training_request
from nas.api.training import train_bundle
from nas.artifacts.paths import CALIBRATION, CURVES, DETECTIONS, EVENTS, PLOT
from nas.cli.progress import EpochProgress
from nas.config.parsing import parse_model
from nas.config.recipe import CUSTOM, Recipe, load_recipe
from nas.evaluation.visualization import colour_of
from nas.export.bundle import read_description
from nas.reports import EpochReport
from nas.utils.folders import MARK
from search_spaces.layout import Layout

LAYOUT = "C1-C1-T1-T1@16"
SETTINGS = [
    "--recipe",
    "tiny",
    "--detector",
    "fcos",
    "--image-size",
    "48",
    "--set",
    "detector.channels=64",
]


def rows(curves: Path) -> list[dict[str, str]]:
    with open(curves / CURVES, newline="") as file:
        return list(csv.DictReader(file))


def steps(curves: Path) -> list[int]:
    """Of the events that hold a loss."""
    content, start, found = (curves / EVENTS).read_bytes(), 0, []
    while start < len(content):
        length = int.from_bytes(content[start : start + 8], "little")
        event = Event.FromString(content[start + 12 : start + 12 + length])
        found += [event.step for value in event.summary.value if value.tag == "train/loss"]
        start += 16 + length
    return found


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_curves_of_an_interrupted_run_are_whole(
    digits: Path, tmp_path: Path, nas: Run, monkeypatch: pytest.MonkeyPatch
):
    out, curves = tmp_path / "mine", tmp_path / "mine.curves"
    command = (
        "train",
        LAYOUT,
        "--data",
        digits,
        *SETTINGS,
        "--set",
        "calibration.definition=paper",
        "--epochs",
        "3",
        "--no-onnx",
        "--out",
        out,
    )

    def interrupt(self: EpochProgress, report: EpochReport) -> None:
        if report.epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EpochProgress, "on_report", interrupt)
        assert nas(*command)[0] == 130
    assert [row["epoch"] for row in rows(curves)] == ["1"]
    assert names(curves) == {CURVES, CALIBRATION, PLOT, EVENTS, MARK}
    code, said, _ = nas(*command, "--json")
    assert code == 0
    assert [row["epoch"] for row in rows(curves)] == ["1", "2", "3"]
    assert steps(curves) == [1, 2, 3]
    assert float(rows(curves)[-1]["map"]) == json.loads(said)["map"]
    assert json.loads(said)["curves"] == str(curves)
    assert names(tmp_path) == {"mine", "mine.curves"}
    assert names(curves) == {CURVES, CALIBRATION, PLOT, EVENTS, DETECTIONS, MARK}
    assert len(names(curves / DETECTIONS)) == 8
    for picture in [curves / PLOT, *(curves / DETECTIONS).iterdir()]:
        with Image.open(picture) as image:
            assert len(image.convert("RGB").getcolors(2**24)) > 1


@pytest.fixture(scope="module")
def bundle(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained as a file says."""
    out = tmp_path_factory.mktemp("trained") / "one"
    run = out.with_name("run.yaml")
    keys = "recipe: {name: tiny, epochs: 3, image_size: 48}\ndetector: {name: fcos, channels: 64}\n"
    keys += "calibration: {definition: paper}\n"
    run.write_text(f"layout: {LAYOUT}\n{keys}")
    command = ("train", run, "--data", digits, "--epochs", "1", "--no-onnx", "--out", out)
    assert run_here("nas", *command).code == 0
    return out


@pytest.mark.parametrize("key", ["recipe.name", "recipe"])
def test_a_bundle_trains_by_the_recipe_that_is_named_alone(bundle: Path, digits: Path, key: str):
    layout, spec = training_request(
        str(bundle), {"data.root": str(digits), key: "paper", "recipe.batch": 8}
    )
    assert str(layout) == LAYOUT
    assert spec.recipe == parse_model(Recipe, {**load_recipe("paper"), "batch": 8})
    assert spec.detector.channels == 64  # still the bundle's


def test_a_bundle_trains_as_before_but_for_what_flags_say(bundle: Path, digits: Path):
    trained = read_description(bundle)
    _, spec = training_request(str(bundle), {"data.root": str(digits)})
    assert spec.recipe == trained.recipe.model_copy(update={"name": CUSTOM})
    assert (spec.detector, spec.calibration) == (trained.detector, trained.calibration)
    _, spec = training_request(
        str(bundle), {"data.root": str(digits), "recipe.epochs": 5, "recipe.lr": 0.5}
    )
    assert spec.recipe == trained.recipe.model_copy(update={"name": CUSTOM, "epochs": 5, "lr": 0.5})


def test_a_new_run_leaves_nothing_of_the_old_one(bundle: Path, digits: Path, nas: Run):
    curves = bundle.with_name("one.curves")
    assert (curves / CALIBRATION).exists()
    (curves / DETECTIONS / "of-another-data-set.png").write_bytes(b"x")
    assert (
        nas(
            "train",
            bundle,
            "--data",
            digits,
            "--out",
            bundle,
            "--no-onnx",
            "--set",
            "calibration.enabled=false",
        )[0]
        == 0
    )
    assert names(curves) == {CURVES, PLOT, EVENTS, DETECTIONS, MARK}
    assert len(names(curves / DETECTIONS)) == 8
    assert steps(curves) == [1]


def test_a_place_for_curves_that_is_a_file_stops_before_training(
    digits: Path, tmp_path: Path, nas: Run
):
    (tmp_path / "mine.curves").write_text("notes")
    code, out, err = nas("train", LAYOUT, "--data", digits, *SETTINGS, "--out", tmp_path / "mine")
    assert (code, out) == (2, "")
    *notes, line = err.splitlines()
    assert line.startswith("nas: ")
    assert not any(note.startswith("nas: ") for note in notes)
    assert "mine.curves' cannot be written: File exists" in line
    assert names(tmp_path) == {"mine.curves"}


def test_evaluation_draws_every_image(
    bundle: Path, digits: Path, tmp_path: Path, nas: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "nas.evaluation.visualization.SHOWN_SCORE", 0
    )  # hardly trained, the detector is sure of nothing
    code, out, _ = nas(
        "evaluate", bundle, "--data", digits, "--draw", tmp_path / "a" / "b", "--json"
    )
    assert code == 0
    assert json.loads(out)["images"] == 8
    assert names(tmp_path / "a" / "b") == {
        f"{number:06d}-{number:05d}.png" for number in range(1, 9)
    }
    coco = json.loads((digits / "instances_val.json").read_text())
    box = next(
        box for box in reversed(coco["annotations"]) if box["image_id"] == 1
    )  # the last one drawn lies above
    x, y, _, h = map(int, box["bbox"])
    with Image.open(tmp_path / "a" / "b" / "000001-00001.png") as picture:
        shown = np.asarray(picture)
    assert shown.shape == (64, 64 + 4 + 64, 3)
    assert (
        shown[y : y + h, x] == colour_of(box["category_id"])
    ).all()  # ids of the digits are their labels
    colours = [colour_of(label) for label in range(1, 11)]
    assert any((shown[:, 68:] == colour).all(axis=-1).any() for colour in colours)


@pytest.mark.parametrize(
    ("folder", "words"), [("/proc/new", "No such file"), ("{tmp_path}/file", "File exists")]
)
def test_drawings_that_cannot_be_written_are_one_line(
    bundle: Path, digits: Path, tmp_path: Path, nas: Run, folder: str, words: str
):
    (tmp_path / "file").write_text("mine")
    code, out, err = nas(
        "evaluate", bundle, "--data", digits, "--draw", folder.format(tmp_path=tmp_path)
    )
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert f"cannot be written: {words}" in line
    assert names(tmp_path) == {"file"}


class Recorder(TrainingCallback):
    """Keeps what it is told: of several images or steps in a row, the last."""

    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []

    def keep(self, name: str, what: object) -> None:
        if self.told and self.told[-1][0] == name:
            self.told.pop()
        self.told.append((name, what))

    def on_begin(self, layout: Layout, epochs: int) -> None:
        self.keep("begin", (str(layout), epochs))

    def on_image(self, split: str, done: int, total: int) -> None:
        self.keep("image", (split, done, total))

    def on_step(self, step: int, steps: int, loss: object) -> None:
        self.keep("step", (step, steps))

    def on_report(self, report: object) -> None:
        assert isinstance(report, EpochReport)
        self.keep("report", report.epoch)

    def on_trained(self) -> None:
        self.keep("trained", None)


def test_without_a_terminal_a_callback_is_told_and_nothing_is_printed(
    digits: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    flags = {
        "data.root": str(digits),
        "recipe": "tiny",
        "detector.name": "fcos",
        "detector.channels": 64,
        "recipe.epochs": 1,
        "recipe.image_size": 48,
    }
    layout, spec = training_request("C1-C1-C1-C1@16", flags)
    recorder, out = Recorder(), tmp_path / "bundle"
    trained, left_out = train_bundle(layout, spec, out, recorder, onnx=False)
    assert recorder.told == [
        ("begin", ("C1-C1-C1-C1@16", 1)),
        ("image", ("val", 8, 8)),
        ("step", (6, 6)),  # 24 images in batches of 4
        ("report", 1),
        ("trained", None),
    ]
    assert capfd.readouterr() == ("", "")
    assert left_out == ["ONNX was not asked for."]
    assert read_description(out) == trained
    assert names(tmp_path) == {"bundle", "bundle.curves"}
