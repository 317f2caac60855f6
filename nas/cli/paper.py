"""`nas paper-tables`: the paper's Tables 1 to 5 beside our own counts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nas.cli import options
from nas.cli.runner import print_json, say
from nas.utils.formatting import gib_text, percent

COLUMNS = (
    "detector",
    "layout",
    "trained",
    "mAP",
    "params M",
    "counted",
    "FLOPs G",
    "counted",
    "memory G",
    "predicted GiB",
    "measured GiB",
    "of Swin-T",
    "note",
)
TEXT_COLUMNS = ("detector", "layout", "trained", "note")


def paper_tables(
    table: Annotated[int | None, typer.Option(min=1, max=5, help="One table only.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    measured: Annotated[
        Path | None, typer.Option(help="What benchmarks/memory.py wrote on a GPU.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Print the figures of Hong et al. (CVPR 2022) beside our counts of the same layouts.

    Printed figures stand first; misprints are noted; detectors that are not there yet are marked
    missing.
    """
    from nas.cli.progress import ImageProgress
    from nas.profiling.paper_tables import (
        MEMORY_NOTE,
        MEMORY_TABLE,
        TABLES,
        measured_memory,
        paper_rows,
    )

    measurements = measured_memory(measured) if measured else None
    with ImageProgress() as progress:
        rows = paper_rows((table,) if table else TABLES, progress.on_image, measurements)
    if as_json:
        print_json(rows)
        return
    for number in sorted({row["table"] for row in rows}):
        of_table = [row for row in rows if row["table"] == number]
        title = f"Table {number}: {of_table[0]['title']}"
        if markdown:
            say(_markdown(title, of_table))
        else:
            _print(title, of_table)
        if number == MEMORY_TABLE:
            say(MEMORY_NOTE)


def _cells(row: dict[str, Any]) -> list[str]:
    printed, counted = row["printed"], row["counted"]
    detector = row["detector"] + (f" ({row['roi_op']})" if row["roi_op"] else "")
    ours, measured, share = ["missing"] * 3, "-", "missing"
    if counted:
        params, flops = f"{counted['params'] / 1e6:.4f}", f"{counted['paper_flops'] / 1e9:.3f}"
        ours = [params, flops, f"{counted['memory_predicted_gib']:.2f}"]
        measured, share = (
            gib_text(counted.get("memory_measured_gib")),
            f"{percent(counted['memory_of_swin_t'])} %",
        )
    theirs = [str(printed.get(name, "-")) for name in ("params_m", "flops_g", "memory_g")]
    pairs = [cell for pair in zip(theirs, ours, strict=True) for cell in pair]
    return [
        detector,
        row["layout"],
        row["trained"],
        percent(printed.get("map")),
        *pairs,
        measured,
        share,
        row["note"] or "",
    ]


def _print(title: str, rows: list[dict[str, Any]]) -> None:
    from nas.cli.tables import TextTable, print_table

    shown = TextTable(title=title)
    for name in COLUMNS:
        shown.add_column(name, justify="left" if name in TEXT_COLUMNS else "right")
    for row in rows:
        shown.add_row(*_cells(row))
    print_table(shown)


def _markdown(title: str, rows: list[dict[str, Any]]) -> str:
    lines = [
        COLUMNS,
        ["---" if name in TEXT_COLUMNS else "---:" for name in COLUMNS],
        *map(_cells, rows),
    ]
    return f"### {title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)
