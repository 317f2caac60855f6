"""What a search has found, as Plotly figures: each made from one reading of the study, by a
function that changes nothing.

Scores are in per cent, for people. A figure that has nothing to show says why.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import optuna
import plotly.graph_objects as go

from dashboards.plot_style import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    ORANGE,
    add_budget,
    add_courses,
    add_points,
    empty_figure,
    label_of,
    new_figure,
)
from dashboards.study_view import STATES, StudyView, pattern
from nas.study.optuna_internals import CandidateStudy, storage_of
from nas.study.roles import TAKEN_OVER
from nas.utils.formatting import duration_text, in_percent

MEMORY, SCORE = "memory per GPU, GiB", "validation mAP, %"
FEWEST_FOR_IMPORTANCES = 4


class Plot(NamedTuple):
    """A plot of a page.

    Attributes:
        name: identifies it in the page.
        title: what it shows.
        caption: what to look for.
        draw: makes the figure from one reading of a study.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[StudyView], go.Figure]


def memory_and_map(view: StudyView) -> go.Figure:
    """mAP against memory, with the budget's line; an infeasible candidate without a score lies at
    the bottom.
    """
    rows = [
        row
        for row in view.rows
        if row.memory_gib is not None and (row.map is not None or row.state == "INFEASIBLE")
    ]
    if not rows:
        return empty_figure("no candidate has a score yet")
    figure = new_figure(MEMORY, SCORE)
    for state in STATES:
        chosen = [row for row in rows if row.state == state]
        add_points(
            figure,
            state,
            [(row.memory_gib, in_percent(row.map) or 0.0, label_of(row)) for row in chosen],
        )
    add_budget(figure, view.budget_gib, [row.memory_gib or 0.0 for row in rows])
    return figure


def pareto(view: StudyView) -> go.Figure:
    """Feasible, completed candidates, and the line of those that no other beats in both mAP and
    memory.
    """
    points = [
        (row.memory_gib, 100 * row.map, label_of(row))
        for row in view.board
        if row.memory_gib and row.map is not None
    ]
    if not points:
        return empty_figure("no candidate is complete yet")
    figure = new_figure(MEMORY, SCORE)
    add_points(figure, "COMPLETE", points)
    front: list[tuple[float, float, str]] = []
    for point in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    memory, score, labels = zip(*front, strict=True)
    figure.add_scatter(
        x=memory,
        y=score,
        hovertext=labels,
        hoverinfo="text",
        mode="lines+markers",
        name="Pareto front",
        line={"color": GREEN, "shape": "hv", "width": 2},
        marker={"color": GREEN, "symbol": "diamond", "size": 12},
    )
    return figure


def epochs(view: StudyView) -> go.Figure:
    """mAP of every candidate after each epoch; where one was stopped early there is a mark, the
    best is drawn thick.
    """
    courses = {
        trial.number: sorted(trial.intermediate_values.items())
        for trial in view.trials
        if trial.intermediate_values
    }
    if not courses:
        several = len(view.study.directions) > 1
        return empty_figure(
            "with several objectives the study keeps no scores by epoch"
            if several
            else "no epoch has ended yet"
        )
    figure, rows = new_figure("epoch", SCORE), {row.number: row for row in view.rows}
    for state in STATES:
        numbers = [number for number in courses if rows[number].state == state]
        add_courses(
            figure, state, [(courses[number], label_of(rows[number])) for number in numbers]
        )
    if view.board and (best := view.board[0].number) in courses:
        figure.add_scatter(
            x=[epoch for epoch, _ in courses[best]],
            y=[100 * value for _, value in courses[best]],
            mode="lines+markers",
            name=f"best: trial {best}",
            line={"color": GREEN, "width": 4},
            hovertext=label_of(rows[best]),
            hoverinfo="text+y",
        )
    figure.update_xaxes(
        dtick=max(1, max(epoch for course in courses.values() for epoch, _ in course) // 10)
    )
    return figure


def patterns(view: StudyView) -> go.Figure:
    """mAP by pattern of C and T stages, the best pattern first."""
    by_pattern: dict[str, list[tuple[float, str]]] = {}
    for row in view.board:
        if (kinds := pattern(row.layout)) and row.map is not None:
            by_pattern.setdefault(kinds, []).append((100 * row.map, label_of(row)))
    if not by_pattern:
        return empty_figure("no candidate is complete yet")
    figure = new_figure("pattern of the four stages", SCORE)
    for kinds, points in sorted(by_pattern.items(), key=lambda item: -max(item[1])[0]):
        figure.add_box(
            y=[score for score, _ in points],
            x=[kinds] * len(points),
            hovertext=[label for _, label in points],
            name=kinds,
            hoverinfo="text",
            boxpoints="all",
            jitter=0.4,
            pointpos=0,
            marker={"color": BLUE, "size": 7},
            line={"color": GREY, "width": 1},
            fillcolor="rgba(0,0,0,0)",
            showlegend=False,
        )
    return figure


def importances(view: StudyView) -> go.Figure:
    """How much each parameter decides whether a candidate is among the best, by Optuna's default
    evaluator (PED-ANOVA).
    """
    count = len(view.board)
    if count < FEWEST_FOR_IMPORTANCES:
        return empty_figure(
            f"{count} completed candidates are too few: importances need {FEWEST_FOR_IMPORTANCES} "
            "at least"
        )
    try:
        candidates = CandidateStudy(view.study.study_name, storage_of(view.study))
        found = optuna.importance.get_param_importances(
            candidates
        )  # of several objectives, for being on the front
    except (ValueError, RuntimeError, ImportError) as error:
        return empty_figure(f"importances cannot be told: {error}")
    if not any(map(math.isfinite, found.values())):
        return empty_figure("all candidates scored the same")
    figure = new_figure("importance", None)
    names, shares = zip(*reversed(found.items()), strict=True)
    texts = [f"{100 * share:.0f} %" for share in shares]
    figure.add_bar(
        x=shares, y=names, orientation="h", text=texts, marker={"color": BLUE}, hoverinfo="skip"
    )
    figure.update_layout(showlegend=False)
    figure.update_xaxes(tickformat=".0%", rangemode="tozero")
    return figure


def calibration(view: StudyView) -> go.Figure:
    """Spread of the gradients over the layers before and after calibration, for each trial."""
    rows = [row for row in view.rows if "spread_after" in (row.calibration or {})]
    if not rows:
        return empty_figure("no candidate was calibrated")
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
        for row in view.rows
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


PLOTS = (
    Plot(
        "memory",
        "mAP against memory",
        "Memory of training, measured, else predicted. Left of the dashed line fits into the "
        "budget; crosses were "
        "measured to need more.",
        memory_and_map,
    ),
    Plot(
        "pareto", "Pareto front", "Candidates that no other beats in both mAP and memory.", pareto
    ),
    Plot(
        "epochs",
        "mAP by epoch",
        "Every candidate; a triangle marks where one was stopped early.",
        epochs,
    ),
    Plot(
        "patterns",
        "Patterns",
        "Which stages are convolutional (C), which transformer (T), and what that scored.",
        patterns,
    ),
    Plot(
        "importances",
        "Parameter importances",
        "What decides whether a candidate is among the best, by Optuna's PED-ANOVA.",
        importances,
    ),
    Plot(
        "calibration",
        "Gradient calibration",
        "C is the mean square of a layer's gradient, its spread the standard deviation over the "
        "layers: with a small one "
        "all layers start to learn at one pace.",
        calibration,
    ),
    Plot(
        "measured",
        "Predicted and measured memory",
        "On the line the prediction was exact.",
        predicted_and_measured,
    ),
    Plot(
        "hours",
        "Where the time went",
        "By how the trainings ended, baselines and replicates included.",
        hours,
    ),
)
