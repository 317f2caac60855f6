"""Tables for pages and notebooks."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


def html_table(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """Write a table; every text is escaped.

    Args:
        header: of each column.
        rows: texts of the cells.
        caption: above it; none where it is empty.
    """
    heads = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    lines = [
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    ]
    above = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return f"<table>{above}<tr>{heads}</tr>{''.join(lines)}</table>"
