"""Curves of a training run: every file read back by something else."""

from __future__ import annotations

import csv
import dataclasses
import struct
from pathlib import Path

import numpy as np
import pytest
from helpers.untrained import report
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from nas.artifacts.curves import calibration_changes, clear_curves, write_curves
from nas.artifacts.paths import CALIBRATION, CURVES, DETECTIONS, EVENTS, PLOT
from nas.errors import OutputError
from nas.reports import CalibrationReport, EpochReport
from nas.utils.folders import MARK, claim_folder

CALIBRATED = CalibrationReport(
    layers=3,
    skipped=(),
    passes=1,
    spread_before=2.5,
    spread_after=0.5,
    ratio_before=90.0,
    ratio_after=4.0,
    loss_before=3.0,
    loss_after=2.75,
    factor_min=0.5,
    factor_max=2.0,
    bounded=0,
    group_means_before={"convolution": -12.0, "neck and head": -9.0},
    group_means_after={"convolution": -11.0, "neck and head": -10.5},
).to_dict()
BLUE, ORANGE = (0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E)  # matplotlib's first two colours


def reports(epochs: int, calibration: dict | None = CALIBRATED) -> list[EpochReport]:
    return [
        report(
            epoch / 40,
            epoch,
            epochs=epochs,
            loss=3 / epoch,
            lr=1e-3 / epoch,
            calibration=calibration,
        )
        for epoch in range(1, epochs + 1)
    ]


def events(folder: Path) -> list[Event]:
    """TFRecord: length (8 bytes), its checksum (4), the message, its checksum (4)."""
    content, start, found = (folder / EVENTS).read_bytes(), 0, []
    while start < len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        found.append(Event.FromString(content[start + 12 : start + 12 + length]))
        start += 12 + length + 4
    return found


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for event in events(folder):
        for value in event.summary.value:
            assert event.step not in found.setdefault(value.tag, {})
            found[value.tag][event.step] = value.simple_value
    return found


def fields(folder: Path) -> list[np.ndarray]:
    """The quarters of the picture: loss, scores, learning rate, calibration; [H, W, 3]."""
    with Image.open(folder / PLOT) as picture:
        shown = np.asarray(picture.convert("RGB"))
    height, width = shown.shape[0] // 2, shown.shape[1] // 2
    return [
        shown[top : top + height, left : left + width] for top in (0, height) for left in (0, width)
    ]


def test_the_scalars_are_those_of_the_reports(tmp_path: Path):
    write_curves(tmp_path, expected := reports(3), "a layout")
    found = scalars(tmp_path)
    for each in expected:
        assert found["train/loss"][each.epoch] == pytest.approx(each.loss)
        assert found["train/lr"][each.epoch] == pytest.approx(each.lr)
        assert found["val/map"][each.epoch] == pytest.approx(each.metrics.map)
        assert found["val/map_50"][each.epoch] == pytest.approx(each.metrics.map_50)
    assert "val/map_small" not in found  # None throughout
    assert found["calibration/spread_log_c/before"] == {0: 2.5}
    assert found["calibration/mean_log_c_neck_and_head/after"] == {0: -10.5}


def test_wall_times_are_as_far_apart_as_the_epochs(tmp_path: Path):
    write_curves(tmp_path, expected := reports(3), "a layout")
    first, *rest = events(tmp_path)
    assert first.file_version == "brain.Event:2"
    times = [event.wall_time - first.wall_time for event in rest]
    assert times == pytest.approx([0, *(each.elapsed_s for each in expected)], abs=1e-3)


def test_what_a_reader_has_read_keeps_its_place(tmp_path: Path):
    write_curves(tmp_path, reports(5)[:2], "a layout")
    inode, length, before = (
        (tmp_path / EVENTS).stat().st_ino,
        (tmp_path / EVENTS).stat().st_size,
        len(events(tmp_path)),
    )
    write_curves(tmp_path, reports(5), "a layout")
    assert (tmp_path / EVENTS).stat().st_ino == inode
    assert sum(12 + event.ByteSize() + 4 for event in events(tmp_path)[:before]) == length


def test_the_table_of_calibration(tmp_path: Path):
    write_curves(tmp_path, reports(1), "a layout")
    with open(tmp_path / CALIBRATION, newline="") as file:
        rows = {
            row["quantity"]: (float(row["before"]), float(row["after"]))
            for row in csv.DictReader(file)
        }
    assert rows == {
        "spread_log_c": (2.5, 0.5),
        "ratio_c": (90, 4),
        "loss": (3, 2.75),
        "mean_log_c convolution": (-12, -11),
        "mean_log_c neck and head": (-9, -10.5),
    }


@pytest.mark.parametrize("calibration", [None, {"definition": "outputs", "views": 24}])
def test_without_calibration_of_weights_there_is_no_table_of_it(
    tmp_path: Path, calibration: dict | None
):
    write_curves(tmp_path, reports(1, calibration=calibration), "a layout")
    assert {entry.name for entry in tmp_path.iterdir()} == {CURVES, PLOT, EVENTS}
    assert calibration_changes(calibration) == []
    assert [event.step for event in events(tmp_path)] == [0, 1]


@pytest.mark.parametrize("epochs", [1, 30])
def test_the_picture_has_a_line_in_each_of_its_fields(tmp_path: Path, epochs: int):
    write_curves(tmp_path, reports(epochs), "a layout")
    loss, scores, rate, calibration = fields(tmp_path)
    for field, colours in (
        (loss, {BLUE}),
        (scores, {ORANGE}),
        (rate, {BLUE}),
        (calibration, {BLUE, ORANGE}),
    ):
        for colour in colours:  # mAP lies below AP50, which is equal here
            assert (field == colour).all(axis=-1).any()
        assert len(np.unique(field.reshape(-1, 3), axis=0)) > 1 + len(colours)


def test_a_picture_of_nothing_has_no_line(tmp_path: Path):
    write_curves(tmp_path, [], "a layout")
    loss, _, rate, _ = fields(tmp_path)
    assert not (loss == BLUE).all(axis=-1).any()
    assert not (rate == BLUE).all(axis=-1).any()


def test_a_score_that_is_not_defined_leaves_a_gap(tmp_path: Path):
    undefined = dataclasses.replace(reports(1)[0].metrics, map=None, map_50=None)
    write_curves(
        tmp_path, [dataclasses.replace(each, metrics=undefined) for each in reports(2)], "a layout"
    )
    assert "val/map" not in scalars(tmp_path)
    assert "val/ar_1" in scalars(tmp_path)


def test_clearing_removes_ours_only(tmp_path: Path):
    claim_folder(tmp_path)
    write_curves(tmp_path, reports(1), "a layout")
    (tmp_path / DETECTIONS).mkdir()
    (tmp_path / DETECTIONS / "1-a.png").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("mine")
    clear_curves(tmp_path)
    clear_curves(tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == {"notes.txt", MARK}


def test_a_folder_that_is_not_there_is_an_error_of_output(tmp_path: Path):
    with pytest.raises(OutputError, match="cannot be written"):
        write_curves(tmp_path / "gone", reports(1), "a layout")
