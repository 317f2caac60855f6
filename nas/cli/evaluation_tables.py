"""Tables of what is wrong with detections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from nas.cli.tables import TextTable
from nas.utils.formatting import percent

if TYPE_CHECKING:
    from nas.evaluation.confusion import ConfusionMatrix
    from nas.evaluation.error_types import ErrorTypes

WIDEST = 12  # classes of a matrix that a terminal has room for
MOST = 20  # rows where there are more classes


def confusion_table(matrix: ConfusionMatrix) -> Table:
    """A row for each class and a column for what it is found as; of more than 12 classes the 20
    most frequent confusions.
    """
    title = f"Found as, from IoU {matrix.iou:g} and score {matrix.score:g}"
    if len(matrix.classes) > WIDEST + 1:
        return _longest(matrix, title)
    table = TextTable(title=f"{title}; rows are what is there")
    table.add_column("")
    for name in matrix.classes:
        table.add_column(name, justify="right")
    for name, row in zip(matrix.classes, matrix.counts.tolist(), strict=True):
        table.add_row(name, *map(str, row))
    return table


def _longest(matrix: ConfusionMatrix, title: str) -> Table:
    table = TextTable(title=f"{title}; the most frequent confusions, --json has all")
    for heading in ("what is there", "found as", "times"):
        table.add_column(heading)
    for there, found, count in matrix.confused()[:MOST]:
        table.add_row(there, found, str(count))
    return table


def errors_table(types: ErrorTypes) -> Table:
    """A row for each type of error, with what AP would gain without it, in per cent."""
    table = TextTable(title=f"Errors at IoU {types.iou:g}, where AP is {percent(types.ap)}")
    table.add_column("error")
    for heading in ("count", "AP gained without"):
        table.add_column(heading, justify="right")
    table.add_column("what it is")
    for name, each in types.types.items():
        table.add_row(name, str(each.count), percent(each.gain), each.meaning)
    return table
