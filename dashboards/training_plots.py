"""How the trainings of a search went, as Plotly figures: calibration, memory and time."""

from __future__ import annotations

import plotly.graph_objects as go

from dashboards.plot_style import (
    BLUE,
    COLOURS,
    GREY,
    ORANGE,
    add_points,
    empty_figure,
    label_of,
    new_figure,
)
from dashboards.study_view import STATES, StudyView
from nas.study.roles import TAKEN_OVER
from nas.utils.formatting import duration_text


def calibration(view: StudyView) -> go.Figure:
    """Spread of the gradients over the layers before and after calibration, for each trial."""
    rows = [row for row in view.drawn if "spread_after" in (row.calibration or {})]
    if not rows:
        return empty_figure("no candidate's gradients were calibrated")
    figure = new_figure("trial", "spread of log C")
    numbers = [row.number for row in rows]
    sides = {
        side: [(row.calibration or {})[f"spread_{side}"] for row in rows]
        for side in ("before", "after")
    }
    gaps = [number for number in numbers for _ in range(3)]
    ends = [
        end for pair in zip(sides["before"], sides["after"], strict=True) for end in (*pair, None)
    ]
    figure.add_scatter(
        x=gaps,
        y=ends,
        mode="lines",
        line={"color": GREY, "width": 1},
        hoverinfo="skip",
        showlegend=False,
    )
    for side, colour, symbol in (("before", ORANGE, "circle-open"), ("after", BLUE, "circle")):
        texts = [
            f"{label_of(row)}<br>{side}: {value:.2f}"
            for row, value in zip(rows, sides[side], strict=True)
        ]
        figure.add_scatter(
            x=numbers,
            y=sides[side],
            mode="markers",
            name=side,
            hovertext=texts,
            hoverinfo="text",
            marker={"color": colour, "symbol": symbol, "size": 10},
        )
    figure.update_yaxes(rangemode="tozero")
    return figure


def predicted_and_measured(view: StudyView) -> go.Figure:
    """Measured against predicted memory; below the line the prediction was too high."""
    rows = [
        (row, row.memory_predicted_gib, row.memory_peak_gib)
        for row in view.drawn
        if row.memory_predicted_gib and row.memory_peak_gib
    ]
    if not rows:
        return empty_figure("nothing was measured: memory is measured on a GPU only")
    figure = new_figure("predicted peak, GiB", "measured peak, GiB")
    most = 1.05 * max(max(predicted, measured) for _, predicted, measured in rows)
    figure.add_scatter(
        x=[0, most],
        y=[0, most],
        mode="lines",
        name="equal",
        line={"color": GREY, "dash": "dash"},
        hoverinfo="skip",
    )
    for state in STATES:
        chosen = [
            (predicted, measured, label_of(row))
            for row, predicted, measured in rows
            if row.state == state
        ]
        add_points(figure, state, chosen)
    return figure


def hours(view: StudyView) -> go.Figure:
    """Where the time went, by how the trials ended, on GPUs; without them the time of training."""
    rows = [row for row in view.rows if row.role != TAKEN_OVER]
    gpu = any(row.gpu_s for row in rows)
    ended = {
        state: [(row.gpu_s if gpu else row.train_s) or 0.0 for row in rows if row.state == state]
        for state in STATES
    }
    spent = {state: sum(seconds) for state, seconds in ended.items()}
    if not any(spent.values()):
        return empty_figure("no time has been spent yet")
    unit, unit_s = ("hours", 3600) if sum(spent.values()) >= 3600 else ("minutes", 60)
    figure = new_figure(f"GPU-{unit}" if gpu else f"{unit} of training (no GPU)", None)
    for state, seconds in spent.items():
        if seconds:
            count = len(ended[state])
            figure.add_bar(
                x=[seconds / unit_s],
                y=[state.lower()],
                orientation="h",
                name=state.lower(),
                marker={"color": COLOURS[state]},
                text=[f"{duration_text(seconds)} in {count} trial{'s' * (count != 1)}"],
                hoverinfo="skip",
                width=0.5,
            )
    figure.update_layout(showlegend=False)
    figure.update_xaxes(rangemode="tozero")
    return figure
