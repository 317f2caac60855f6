"""What candidates scored, as Plotly figures: mAP against memory, epochs and patterns."""

from __future__ import annotations

import math

import optuna
import plotly.graph_objects as go

from dashboards.plot_style import (
    BLUE,
    GREEN,
    GREY,
    add_baselines,
    add_budget,
    add_courses,
    add_points,
    empty_figure,
    label_of,
    new_figure,
)
from dashboards.study_view import STATES, StudyView, pattern
from nas.reports import TrialRow
from nas.study.optuna_internals import CandidateStudy, storage_of
from nas.study.roles import BASELINE
from nas.utils.formatting import in_percent

MEMORY, LATENCY, SCORE = "memory per GPU, GiB", "latency, ms", "validation mAP, %"
FEWEST_FOR_IMPORTANCES = 4


def memory_and_map(view: StudyView) -> go.Figure:
    """mAP against memory, with the budget's line; an infeasible candidate without a score lies at
    the bottom.
    """
    rows = [
        row
        for row in view.drawn
        if row.memory_gib is not None and (row.map is not None or row.state == "INFEASIBLE")
    ]
    if not rows:
        return empty_figure("no candidate has a score yet")
    figure = new_figure(MEMORY, SCORE)
    for state in STATES:
        chosen = [row for row in rows if row.state == state and row.role != BASELINE]
        add_points(figure, state, [_memory_point(row) for row in chosen])
    baselines = [row for row in rows if row.role == BASELINE]
    add_baselines(figure, [_memory_point(row) for row in baselines])
    add_budget(figure, view.budget_gib, [row.memory_gib or 0.0 for row in rows])
    return figure


def _memory_point(row: TrialRow) -> tuple[float | None, float, str]:
    return row.memory_gib, in_percent(row.map) or 0.0, label_of(row)


def pareto(view: StudyView) -> go.Figure:
    """Feasible, completed candidates, and the line of those that no other beats in both mAP and
    memory or, where the search looks at it, latency.
    """
    timed = any(row.latency_ms is not None for row in view.board)
    costs = [row.latency_ms if timed else row.memory_gib for row in view.board]
    points = [
        (cost, 100 * row.map, label_of(row), row.number)
        for cost, row in zip(costs, view.board, strict=True)
        if cost and row.map is not None
    ]
    if not points:
        return empty_figure("no candidate is complete yet")
    figure, drawn = new_figure(LATENCY if timed else MEMORY, SCORE), _numbers(view.drawn)
    add_points(figure, "COMPLETE", [point[:3] for point in points if point[3] in drawn])
    front: list[tuple[float, float, str, int]] = []
    for point in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    cheapest, score, labels, _ = zip(*front, strict=True)
    figure.add_scatter(
        x=cheapest,
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
        row.number: sorted(view.curves[row.number].items())
        for row in view.drawn_curves
        if view.curves.get(row.number)
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
    drawn = _numbers(view.drawn)
    for row in view.board:
        if row.number in drawn and (kinds := pattern(row.layout)) and row.map is not None:
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


def _numbers(rows: list[TrialRow]) -> set[int]:
    return {row.number for row in rows}


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
