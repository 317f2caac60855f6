"""What a study's page and its report have in common: one reading of the study, ready for the
templates.
"""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
import yaml
from markupsafe import Markup

from dashboards.plots import PLOTS
from dashboards.study_view import StudyView, memory_gib
from dashboards.summary import export_command, provenance, summary_paragraphs
from dashboards.templating import script_json
from dashboards.trial_view import rest, stages
from nas.study.optuna_internals import id_in_storage
from nas.study.roles import role_label

_KEYS = ("layout", "map", "map_50", "map_75", "map_small", "map_medium", "map_large")


def study_context(view: StudyView) -> dict[str, Any]:
    """Everything that the templates of a study name."""
    return {
        "id": id_in_storage(view.study),
        "name": view.name,
        "note": summary_paragraphs(view),
        "export": export_command(view),
        "best": {"stages": stages(view.board[0]), "rest": rest(view.board[0])}
        if view.board
        else None,
        "board": [trial_cells(row) for row in view.board],
        "baselines": view.baselines,
        "again": any(row["within_noise"] is not None for row in view.board),
        "trials": [trial_cells(row) for row in view.rows],
        "plots": [{**plot._asdict(), "json": figure_json(plot.draw(view))} for plot in PLOTS],
        "provenance": provenance(view),
        "request": yaml.safe_dump(view.spec, sort_keys=False, allow_unicode=True)
        if view.spec
        else None,
    }


def trial_cells(row: dict[str, Any]) -> dict[str, Any]:
    """A trial as tables show it."""
    counted = {
        name: f"{row[key] / scale:.2f}" if row.get(key) is not None else "-"
        for name, key, scale in (("params", "params", 1e6), ("gmac", "flops", 1e9))
    }
    return {
        **{key: row.get(key) for key in _KEYS},
        **counted,
        "number": row["number"],
        "state": row["state"],
        "again": row.get("map_again"),
        "replicates": row.get("replicates"),
        "within_noise": row.get("within_noise"),
        "role": role_label(row.get("role", ""), row.get("replicate", 0)),
        "epochs": row.get("epochs", 0),
        "gib": memory_gib(row),
        "train_s": f"{row['train_s']:.0f}" if row.get("train_s") is not None else "-",
        "reason": row.get("infeasible_reason") or row.get("fail_reason") or "",
    }


def figure_json(figure: go.Figure) -> Markup:
    """For a script tag."""
    return script_json(figure.to_json())
