"""What a study's page and its report have in common: one reading of the study, ready for the
templates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
import yaml
from markupsafe import Markup

from dashboards.plots import PLOTS
from dashboards.study_view import MOST_CURVES, MOST_DRAWN, StudyView
from dashboards.summary import Paragraph, export_command, provenance, summary_paragraphs
from dashboards.templating import script_json
from dashboards.trial_list import PAGE_ROWS, TrialList
from dashboards.trial_view import StageBlock, memory_of_other_parts, stage_blocks
from nas.reports import BaselineRow, LeaderboardRow, TrialRow
from nas.reports.metrics import BOX_PRECISIONS, Metric
from nas.study.optuna_internals import id_in_storage
from nas.study.roles import role_label
from nas.utils.formatting import expected_text, scaled_text

THINNED = (
    f"Of many trials {MOST_DRAWN} are drawn, {MOST_CURVES} where each has a curve: the best, and "
    "an even sample of the others."
)


@dataclass(frozen=True)
class TrialCells:
    """One trial as the tables of pages show it.

    Args:
        number, state, layout, epochs: as in `TrialRow`.
        role: in words, with the seed of a replicate.
        map: COCO mAP, 0 to 1.
        scores: figures of `BOX_PRECISIONS`, 0 to 1.
        params: millions of parameters, as text.
        gmac: billions of multiply-adds for one image, as text.
        gib: peak memory in GiB, measured, else predicted.
        train_s: seconds of training, as text.
        reason: why it is infeasible or failed; empty where it did neither.
        again, replicates, within_noise: `map_again` and its fellows of a `LeaderboardRow`; None
            in other tables.
        expected: expected mAP and half of its 95 % interval, in per cent, as text; empty where the
            model does not tell.
    """

    number: int
    state: str
    layout: str | None
    role: str
    epochs: int
    map: float | None
    scores: Sequence[float | None]
    params: str
    gmac: str
    gib: float | None
    train_s: str
    reason: str
    again: float | None = None
    replicates: int | None = None
    within_noise: bool | None = None
    expected: str = ""


@dataclass(frozen=True)
class Drawing:
    """A layout as it is drawn: its stages, and in words where the rest of its memory goes."""

    stages: Sequence[StageBlock]
    rest: str


@dataclass(frozen=True)
class PlotView:
    """A plot of a page: what it is called, shows and tells, and its Plotly figure as JSON."""

    name: str
    title: str
    caption: str
    json: Markup


@dataclass(frozen=True)
class StudyContext:
    """Everything that the templates of a study name.

    Args:
        id: Optuna's number of the study in its database.
        name: of the study.
        note: paragraphs about request, data, budget and progress.
        export: command that exports the best candidate; None where nothing is complete.
        best: drawing of the best candidate; None where nothing is complete.
        metrics: columns of scores in the leaderboard, as in `TrialCells.scores`.
        board: the leaderboard, or its beginning.
        ranked: how many rows the whole of it has.
        again: some layout was trained with several seeds, so that noise is known.
        expected: the model tells what to expect of the rows of the leaderboard.
        running: something is being trained, so that the page is read again every few seconds.
        baselines: published backbones beside the best candidate.
        trials: rows of the table of trials, and which of all they are.
        cells: those rows as tables show them.
        plots: all plots.
        provenance: name and value of what the results depend on.
        request: the whole request as YAML; None for a study that is no search.
    """

    id: int
    name: str
    note: Sequence[Paragraph]
    export: str | None
    best: Drawing | None
    metrics: Sequence[Metric]
    board: Sequence[TrialCells]
    ranked: int
    again: bool
    expected: bool
    running: bool
    baselines: Sequence[BaselineRow]
    trials: TrialList
    cells: Sequence[TrialCells]
    plots: Sequence[PlotView]
    provenance: dict[str, str]
    request: str | None


def study_context(view: StudyView, query: Mapping[str, str] | None = None) -> StudyContext:
    """Read everything that a page about a study shows.

    Args:
        view: the study.
        query: of the page's address, which trials it lists; None for all of them, in a file.
    """
    whole = query is None
    trials = TrialList.whole(view.rows) if query is None else TrialList.asked(view.rows, query)
    thinned = f" {THINNED}" if view.is_thinned else ""
    return StudyContext(
        id=id_in_storage(view.study),
        name=view.name,
        note=summary_paragraphs(view),
        export=export_command(view),
        best=drawing(view.board[0]) if view.board else None,
        metrics=BOX_PRECISIONS,
        board=[trial_cells(row) for row in (view.board if whole else view.board[:PAGE_ROWS])],
        ranked=len(view.board),
        again=any(row.within_noise is not None for row in view.board),
        expected=any(row.map_expected is not None for row in view.board),
        running=view.is_running,
        baselines=view.baselines,
        trials=trials,
        cells=[trial_cells(row) for row in trials.rows],
        plots=[
            PlotView(plot.name, plot.title, plot.caption + thinned, figure_json(plot.draw(view)))
            for plot in PLOTS
        ],
        provenance=provenance(view),
        request=yaml.safe_dump(view.spec, sort_keys=False, allow_unicode=True)
        if view.spec
        else None,
    )


def drawing(row: TrialRow) -> Drawing:
    """The layout of a trial as it is drawn; without stages where it has none that can be read."""
    return Drawing(
        stage_blocks(row.layout, row.memory_parts_gib), memory_of_other_parts(row.memory_parts_gib)
    )


def trial_cells(row: TrialRow) -> TrialCells:
    """One trial as tables show it, with its replicates where it is a row of the leaderboard."""
    ranked = row if isinstance(row, LeaderboardRow) else None
    return TrialCells(
        number=row.number,
        state=row.state,
        layout=row.layout,
        role=role_label(row.role, row.replicate),
        epochs=row.epochs,
        map=row.map,
        scores=[row.scores.get(metric.name) for metric in BOX_PRECISIONS],
        params=scaled_text(row.params, 1e6, 2),
        gmac=scaled_text(row.flops, 1e9, 2),
        gib=row.memory_gib,
        train_s=scaled_text(row.train_s, 1, 0),
        reason=row.reason or "",
        again=ranked.map_again if ranked else None,
        replicates=ranked.replicates if ranked else None,
        within_noise=ranked.within_noise if ranked else None,
        expected=expected_text(ranked.map_expected, ranked.map_low, ranked.map_high)
        if ranked
        else "",
    )


def figure_json(figure: go.Figure) -> Markup:
    """A figure as JSON that can stand between script tags."""
    return script_json(figure.to_json())
