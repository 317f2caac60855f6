"""What became of a candidate, epoch by epoch, in its folder: the reports as JSON lines, and as a table.

Kept in files, because the process that ends a run need not be the one that began it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from nas.places import write_whole
from nas.records import CocoMetrics, EpochReport

REPORTS, CURVES = "reports.jsonl", "curves.csv"
FIGURES = tuple(field.name for field in fields(CocoMetrics) if field.name != "map_per_class")
COLUMNS = ("epoch", "loss", "lr", *FIGURES, "fps", "train_s", "elapsed_s", "memory_peak_bytes")


def record(folder: Path, report: EpochReport) -> None:
    """Add an epoch to `reports.jsonl` and `curves.csv` of a candidate's folder.

    A repeated epoch replaces what was recorded of it and of those after it: the run went back to an earlier checkpoint.

    Raises:
        OutputError: the disk is full or away; both files stay whole.
    """
    reports = [earlier for earlier in read_reports(folder) if earlier.epoch < report.epoch] + [report]
    lines = "".join(json.dumps(asdict(each)) + "\n" for each in reports)
    write_whole(folder / REPORTS, lambda file: file.write(lines.encode()))
    write_csv(folder / CURVES, reports)


def read_reports(folder: Path) -> list[EpochReport]:
    """By epoch, each once; none where nothing was recorded."""
    path = folder / REPORTS
    lines = path.read_text().splitlines() if path.exists() else []
    return [EpochReport.from_dict(json.loads(line)) for line in lines]


def write_csv(path: Path, reports: Sequence[EpochReport]) -> None:
    """A row an epoch; units and meanings are those of `EpochReport` and `CocoMetrics`, empty is None.

    Raises:
        OutputError: the disk is full or away.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(report) | asdict(report.metrics) for report in reports)
    write_whole(path, lambda file: file.write(text.getvalue().encode()))
