"""The record of epochs: every epoch once, to the last digit."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import pytest
from helpers.untrained import report

from nas.artifacts.history import COLUMNS, append_report, read_reports
from nas.artifacts.paths import CHECKPOINT, CURVES, LAST_WEIGHTS, REPORTS, WEIGHTS
from nas.artifacts.trial_files import TrialFiles
from nas.reports import EpochReport


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / CURVES, newline="") as file:
        return list(csv.DictReader(file))


def reports(*values: float) -> list[EpochReport]:
    return [
        report(value, epoch, epochs=9, loss=1 / (3 * epoch))
        for epoch, value in enumerate(values, start=1)
    ]


def test_what_was_recorded_is_read_back(tmp_path: Path):
    assert read_reports(tmp_path) == []
    for each in (expected := reports(0.1, 0.2, 1 / 3)):
        append_report(tmp_path, each)
    assert read_reports(tmp_path) == expected


def test_the_table_has_the_values_of_the_reports(tmp_path: Path):
    for each in (expected := reports(0.1, 1 / 3)):
        append_report(tmp_path, dataclasses.replace(each, memory_peak_bytes=2**31))
    assert [tuple(row) for row in rows(tmp_path)] == [COLUMNS] * 2
    for row, each in zip(rows(tmp_path), expected, strict=True):
        assert (int(row["epoch"]), float(row["loss"]), float(row["lr"])) == (
            each.epoch,
            each.loss,
            each.lr,
        )
        assert (float(row["map"]), float(row["map_50"])) == (each.metrics.map, each.metrics.map_50)
        assert (float(row["train_s"]), float(row["elapsed_s"])) == (each.train_s, each.elapsed_s)
        assert int(row["memory_peak_bytes"]) == 2**31
        assert row["map_small"] == ""  # None: no small objects


@pytest.mark.parametrize("repeated", [1, 2, 3])
def test_a_repeated_epoch_replaces_what_came_of_it(tmp_path: Path, repeated: int):
    for each in (before := reports(0.1, 0.2, 0.3)):
        append_report(tmp_path, each)
    again = report(0.9, repeated, epochs=9)
    append_report(tmp_path, again)
    assert read_reports(tmp_path) == [*before[: repeated - 1], again]
    assert [int(row["epoch"]) for row in rows(tmp_path)] == list(range(1, repeated + 1))


def test_nothing_else_is_left(tmp_path: Path):
    append_report(tmp_path, report(0.1, 1))
    assert {entry.name for entry in tmp_path.iterdir()} == {REPORTS, CURVES}


def test_who_takes_over_a_trial_takes_over_its_epochs(tmp_path: Path):
    dead, heir = (
        TrialFiles(str(tmp_path), "cells", "0123456789", token, "sqlite:///nas.db")
        for token in ("dead-driver", "heir-of-it")
    )
    dead.folder(3).mkdir(parents=True)
    (dead.folder(3) / CHECKPOINT).write_bytes(b"weights")
    (dead.folder(3) / WEIGHTS).write_bytes(b"the best so far")
    for each in (expected := reports(0.1, 0.2)):
        append_report(dead.folder(3), each)
    heir.inherit(3, "dead-driver")
    assert (heir.folder(3) / CHECKPOINT).read_bytes() == b"weights"
    assert (heir.folder(3) / WEIGHTS).read_bytes() == b"the best so far"
    assert read_reports(heir.folder(3)) == expected
    (dead.folder(3) / LAST_WEIGHTS).write_bytes(b"of the last epoch")  # which its heir writes anew
    (heir.folder(3) / WEIGHTS).write_bytes(b"the best of all")
    heir.drop_checkpoints(3)
    assert [(folder / CHECKPOINT).exists() for folder in (dead.folder(3), heir.folder(3))] == [
        False,
        False,
    ]
    assert not (dead.folder(3) / WEIGHTS).exists()
    assert not (dead.folder(3) / LAST_WEIGHTS).exists()
    assert (heir.folder(3) / WEIGHTS).read_bytes() == b"the best of all"


def test_a_copy_of_a_database_removes_nothing_of_the_original(tmp_path: Path):
    original, copy = (
        TrialFiles(str(tmp_path), "cells", "0123456789", f"{name}-driver", f"sqlite:///{name}")
        for name in ("first.db", "copy.db")
    )
    for files in (original, copy):
        files.folder(0).mkdir(parents=True)
        (files.folder(0) / WEIGHTS).touch()
        (files.folder(0) / CHECKPOINT).touch()
    copy.drop_result(0)
    copy.drop_checkpoints(0)
    kept = [
        (files.folder(0) / name).exists()
        for files in (original, copy)
        for name in (WEIGHTS, CHECKPOINT)
    ]
    assert kept == [True, True, False, False]
    original.drop_result(0)
    assert not (original.folder(0) / WEIGHTS).exists()
