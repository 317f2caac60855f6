"""What the figures of a study have in common.

Colours are Okabe and Ito's, darkened or lightened to stand on white and on black, and never alone:
markers differ too.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from dashboards.study_view import STATES
from nas.reports import TrialRow
from nas.study.roles import CANDIDATE
from nas.utils.formatting import percent

BLUE, ORANGE, RED, PINK, GREEN, GREY = (
    "#1f83c9",
    "#e08a00",
    "#d5552b",
    "#c46fa0",
    "#0f9d77",
    "#8a929c",
)
COLOURS = dict(zip(STATES, (BLUE, ORANGE, RED, PINK, GREEN, GREY), strict=True))
SYMBOLS = dict(
    zip(
        STATES,
        ("circle", "triangle-down", "x", "square-open", "circle-open", "circle-dot"),
        strict=True,
    )
)
CLEAR = "rgba(0,0,0,0)"
Points = Sequence[tuple[Any, Any, str]]  # x, y and the text beside a point, as HTML
# a budget that many times above all candidates would squeeze them: the axis becomes logarithmic
_ROOMY = 8


def new_figure(x: str | None, y: str | None) -> go.Figure:
    """An empty figure that leaves the colours of text, grid and paper to the page, light or dark.

    Args:
        x, y: titles of the axes; None for none.
    """
    figure = go.Figure()
    figure.update_layout(
        template="none",
        margin={"l": 64, "r": 16, "t": 16, "b": 56},
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hovermode="closest",
    )
    figure.update_xaxes(title=x, automargin=True)
    figure.update_yaxes(title=y, automargin=True)
    return figure


def empty_figure(why: str) -> go.Figure:
    """A figure that shows nothing but a sentence that says why."""
    figure = new_figure(None, None)
    figure.add_annotation(
        text="<br>".join(textwrap.wrap(_plain(why), 36)),
        x=0.5,
        y=0.5,
        xref="paper",
        yref="paper",
        showarrow=False,
        font={"size": 15},
    )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure


def add_points(figure: go.Figure, state: str, points: Points) -> None:
    """Add the points of one state to a figure.

    Args:
        figure: is changed.
        state: decides colour and marker, one of `STATES`.
        points: x, y and the text that appears beside the point, as HTML.
    """
    _add_markers(figure, state.lower(), COLOURS[state], SYMBOLS[state], points)


def add_baselines(figure: go.Figure, points: Points) -> None:
    """Add the points of published backbones, see `add_points`."""
    _add_markers(figure, "published backbones", GREY, "diamond", points)


def _add_markers(figure: go.Figure, name: str, colour: str, symbol: str, points: Points) -> None:
    if points:
        x, y, labels = zip(*points, strict=True)
        figure.add_scatter(
            x=x,
            y=y,
            hovertext=labels,
            hoverinfo="text",
            mode="markers",
            name=name,
            marker={"color": colour, "symbol": symbol, "size": 10, "opacity": 0.85},
        )


def add_courses(
    figure: go.Figure, state: str, courses: list[tuple[list[tuple[int, float]], str]]
) -> None:
    """Add the learning curves of all trials of one state to a figure, as one line with gaps; those
    that were stopped early end in a mark.

    Args:
        figure: is changed.
        state: decides colour and marker, one of `STATES`.
        courses: for each trial its epochs with their scores, 0 to 1, and the text beside them.
    """
    if not courses:
        return
    steps: list[tuple[int | None, float | None, str]] = []
    for course, label in courses:
        steps += [(epoch, 100 * value, label) for epoch, value in course] + [(None, None, label)]
    x, y, labels = zip(*steps, strict=True)
    figure.add_scatter(
        x=x,
        y=y,
        hovertext=labels,
        hoverinfo="text+y",
        mode="lines+markers",
        marker={"size": 4},
        name=state.lower(),
        line={"color": COLOURS[state], "width": 1.5},
        opacity=0.7,
    )
    if state != "COMPLETE":
        add_points(figure, state, [(*_end(course), label) for course, label in courses])
        figure.data[-1].showlegend = False


def _end(course: list[tuple[int, float]]) -> tuple[int, float]:
    return course[-1][0], 100 * course[-1][1]


def add_budget(figure: go.Figure, budget_gib: float | None, sizes_gib: list[float]) -> None:
    """Add a dashed line at the memory budget to a figure whose x axis is memory.

    Args:
        figure: is changed.
        budget_gib: GiB; nothing is added without a budget.
        sizes_gib: of the points in the figure; the axis is logarithmic where the budget is far
            above all of them.
    """
    if not budget_gib:
        return
    roomy = budget_gib > _ROOMY * max(sizes_gib) > 0
    figure.update_xaxes(
        type="log" if roomy else "linear", rangemode="normal" if roomy else "tozero"
    )
    figure.add_vline(x=budget_gib, line={"color": RED, "dash": "dash", "width": 2})
    figure.add_annotation(
        x=math.log10(budget_gib) if roomy else budget_gib,
        y=1,
        yref="paper",
        text=f"budget {budget_gib:g} GiB",
        showarrow=False,
        xanchor="right",
        xshift=-6,
        font={"color": RED},
    )


def label_of(row: TrialRow) -> str:
    """Text beside the point of a trial, as HTML: number, layout, role, mAP, memory, and why it
    failed.
    """
    role = f" ({row.role})" if row.role not in ("", CANDIDATE) else ""
    parts = [f"trial {row.number}: {row.layout or 'no layout'}{role}"]
    if row.map is not None:
        parts.append(f"mAP {percent(row.map)} %")
    if row.memory_gib is not None:
        parts.append(f"{row.memory_gib:.3g} GiB")
    return "<br>".join(_plain(part) for part in (*parts, row.reason) if part)


def _plain(text: str) -> str:
    """Plotly reads some HTML in texts; what comes from a study has none."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
