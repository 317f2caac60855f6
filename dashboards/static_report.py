"""A study as one HTML file that needs no server: styles, scripts and figures are in it, and nothing
may be fetched.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime

import optuna
import plotly.offline
from markupsafe import Markup

from dashboards.context import study_context
from dashboards.study_view import StudyView
from dashboards.templating import asset, page
from nas.study.optuna_internals import odd_rows_as_study_error

_NOTHING_ELSE = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
    "form-action 'none'"
)


def report_html(study: optuna.Study) -> str:
    """A report on a study, as it is now, as one HTML file: note, plots, leaderboard, trials and
    provenance.

    Raises:
        StudyError: it holds what no search writes, and cannot be shown.
    """
    with odd_rows_as_study_error(study.study_name):
        shown = study_context(StudyView.read(study))
    scripts = [plotly.offline.get_plotlyjs(), asset("plots.js")]
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return page(
        "report.html",
        "",
        shown=shown,
        made=made,
        policy=_policy(scripts),
        style=Markup(asset("page.css")),
        scripts=[Markup(script) for script in scripts],
    )


def _policy(scripts: list[str]) -> str:
    """Only our own scripts run, word for word; nothing is loaded from anywhere."""
    digests = (
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts
    )
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"{_NOTHING_ELSE}; script-src {allowed}"
