"""A few studies side by side: how far each got, and in which keys of their requests they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup

from dashboards.context import TrialCells, figure_json, trial_cells
from dashboards.plot_style import empty_figure, new_figure
from dashboards.study_view import StudyView
from dashboards.summary import summary
from nas.study.optuna_internals import id_in_storage
from nas.study.roles import CANDIDATE

MOST = 4  # studies that fit beside each other
BOARD_ROWS = 5
_OWN = ("study", "storage", "run", "plan")  # what no two studies have in common, or follows from it
ABSENT = "-"


@dataclass(frozen=True)
class ComparedStudy:
    """One of the studies: its number in the database, its name, one line about it, its best."""

    id: int
    name: str
    summary: str
    board: Sequence[TrialCells]


@dataclass(frozen=True)
class Comparison:
    """Everything that the template of a comparison names.

    Args:
        studies: in the order in which they were asked for.
        differences: dotted key of a request, and its value in each study as text.
        figure: Plotly figure of the best mAP so far as JSON.
    """

    studies: Sequence[ComparedStudy]
    differences: Sequence[tuple[str, Sequence[str]]]
    figure: Markup


def compare(views: Sequence[StudyView]) -> Comparison:
    """Put studies side by side.

    Args:
        views: two to `MOST` of them.
    """
    studies = [
        ComparedStudy(
            id_in_storage(view.study),
            view.name,
            summary(view),
            [trial_cells(row) for row in view.board[:BOARD_ROWS]],
        )
        for view in views
    ]
    return Comparison(
        studies, differences([view.spec for view in views]), figure_json(best_so_far(views))
    )


def differences(requests: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Keys in which requests differ, in the order of their names, with the values of each.

    Args:
        requests: plain JSON; empty for a study that is no search.
    """
    flat = [dict(_flat(request)) for request in requests]
    keys = sorted({key for each in flat for key in each})
    rows = [(key, [str(each.get(key, ABSENT)) for each in flat]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _flat(section: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted keys with their values; lists are values."""
    found: list[tuple[str, Any]] = []
    for name, value in section.items():
        if not prefix and name in _OWN:
            continue
        whole = f"{prefix}{name}"
        found += _flat(value, f"{whole}.") if isinstance(value, Mapping) else [(whole, value)]
    return found


def best_so_far(views: Sequence[StudyView]) -> go.Figure:
    """The best mAP of the candidates that had ended, in the order of their numbers; a line for each
    study.
    """
    figure = new_figure("candidates", "best validation mAP so far, %")
    for view in views:
        rows = [row for row in view.rows if row.role in ("", CANDIDATE) and row.state == "COMPLETE"]
        best = list(accumulate((100 * (row.map or 0.0) for row in rows), max))
        if best:
            count = list(range(1, len(best) + 1))
            figure.add_scatter(x=count, y=best, mode="lines", name=view.name, line={"shape": "hv"})
    return figure if figure.data else empty_figure("no candidate is complete yet")
