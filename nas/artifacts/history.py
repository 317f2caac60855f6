"""What became of a candidate, epoch by epoch, in its folder: the reports as JSON lines, and as a
table.

Kept in files, because the process that ends a run need not be the one that began it. Pre-training
is recorded in the same way.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TypeVar

from nas.artifacts.paths import CURVES, REPORTS
from nas.reports import EpochReport, Report
from nas.utils.files import atomic_write

Kind = TypeVar("Kind", bound=Report)


def columns_of(kind: type[Report]) -> tuple[str, ...]:
    """Names of the columns of `curves.csv` for a kind of training."""
    figures = [field.name for field in fields(kind.figures) if field.name != "map_per_class"]
    has = {field.name for field in fields(kind)}
    return (
        "epoch",
        "loss",
        *(("val_loss",) if "val_loss" in has else ()),
        "lr",
        *figures,
        *(n for n in ("fps", "train_s", "elapsed_s", "memory_peak_bytes") if n in has),
    )


COLUMNS = columns_of(EpochReport)


def append_report(folder: Path, report: Report) -> None:
    """Add an epoch to `reports.jsonl` and `curves.csv` of a candidate's folder.

    A repeated epoch replaces what was recorded of it and of those after it: the run went back to an
    earlier checkpoint.

    Raises:
        OutputError: the disk is full or away; both files stay whole.
    """
    reports = [
        earlier for earlier in read_reports_of(type(report), folder) if earlier.epoch < report.epoch
    ] + [report]
    lines = "".join(json.dumps(asdict(each)) + "\n" for each in reports)
    atomic_write(folder / REPORTS, lambda file: file.write(lines.encode()))
    write_csv(folder / CURVES, reports)


def read_reports(folder: Path) -> list[EpochReport]:
    """The recorded epochs of a candidate, in their order, each once; empty where nothing was
    recorded.
    """
    return read_reports_of(EpochReport, folder)


def read_reports_of(kind: type[Kind], folder: Path) -> list[Kind]:
    """The recorded epochs of a training of any kind, in their order, each once.

    Args:
        kind: class of its reports.
        folder: of the training; nothing recorded gives an empty list.

    Raises:
        ValueError, TypeError, KeyError: the file is broken.
    """
    path = folder / REPORTS
    lines = path.read_text().splitlines() if path.exists() else []
    return [kind.from_dict(json.loads(line)) for line in lines]


def write_csv(path: Path, reports: Sequence[Report]) -> None:
    """Write epochs as a table with a row for each. Units and meanings of the columns are those of
    the fields of reports and metrics; an empty cell is None.

    Raises:
        OutputError: the disk is full or away.
    """
    text = io.StringIO()
    columns = columns_of(type(reports[0])) if reports else COLUMNS
    table = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(report) | asdict(report)["metrics"] for report in reports)
    atomic_write(path, lambda file: file.write(text.getvalue().encode()))
