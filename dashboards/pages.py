"""Our own pages beside Optuna Dashboard: what is asked for is read and drawn at that moment,
nothing is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
from bottle import Bottle, HTTPError, HTTPResponse, response, static_file
from optuna.storages import BaseStorage, RDBStorage

from dashboards.context import figure_json, study_context, trial_cells
from dashboards.study_view import StudyView
from dashboards.summary import summary
from dashboards.templating import asset, page
from dashboards.trial_view import (
    PICTURES,
    attributes_of,
    curves,
    files_of,
    folder_of,
    reports_of,
    rest,
    stages,
    weights_of,
)
from nas.study.optuna_internals import id_in_storage

SECTIONS = ("", "assets", "studies")  # first parts of our paths; all others are Optuna Dashboard's
_KINDS = {"css": "text/css", "js": "text/javascript"}


def pages_app(storage: RDBStorage, prefix: str) -> Bottle:
    """The application; it knows nothing of logins."""
    app = Bottle()
    cached = optuna.storages.get_storage(storage)  # finished trials are read once

    @app.get("/")
    def start() -> str:
        found = [
            (id_in_storage(entry), StudyView.read(_load(cached, entry.study_name)))
            for entry in cached.get_all_studies()
        ]
        studies = [
            {"id": number, "name": view.name, "said": summary(view)}
            for number, view in reversed(found)
        ]
        return page("studies.html", prefix, studies=studies)

    @app.get("/assets/<name:re:[a-z]+[.](css|js)>")
    def send_asset(name: str) -> Any:
        response.content_type = _KINDS[name.rpartition(".")[2]]
        if name == "plotly.js":
            return _plotly()
        try:
            return asset(name)
        except FileNotFoundError:
            raise HTTPError(404, "there is no such file") from None

    @app.get("/studies/<study_id:int>")
    def study(study_id: int) -> str:
        return page("study.html", prefix, shown=study_context(_view(cached, study_id)))

    @app.get("/studies/<study_id:int>/trials/<number:int>")
    def trial(study_id: int, number: int) -> str:
        view = _view(cached, study_id)
        return page("trial.html", prefix, id=study_id, name=view.name, **_trial(view, number))

    @app.get("/studies/<study_id:int>/trials/<number:int>/files/<name:path>")
    def send_file(study_id: int, number: int, name: str) -> HTTPResponse:
        view = _view(cached, study_id)
        _row(view, number)
        files = files_of(folder_of(view, number))
        if name not in files:
            raise HTTPError(404, "the trial has no such file")
        return _send(files[name])

    return app


def _load(storage: BaseStorage, name: str) -> optuna.Study:
    return optuna.load_study(study_name=name, storage=storage)


def _view(storage: BaseStorage, study_id: int) -> StudyView:
    try:
        return StudyView.read(_load(storage, storage.get_study_name_from_id(study_id)))
    except KeyError:
        raise HTTPError(404, "there is no such study") from None


def _row(view: StudyView, number: int) -> dict[str, Any]:
    if not 0 <= number < len(view.rows):
        raise HTTPError(404, "the study has no such trial")
    return view.rows[number]


def _trial(view: StudyView, number: int) -> dict[str, Any]:
    row = _row(view, number)
    folder = folder_of(view, number)
    files = files_of(folder)
    return {
        "row": trial_cells(row),
        "stages": stages(row),
        "rest": rest(row),
        "attributes": attributes_of(row),
        "weights": weights_of(row),
        "curves": figure_json(curves(reports_of(folder))),
        "pictures": [name for name in files if name.endswith(PICTURES)],
        "files": [
            (name, path.stat().st_size)
            for name, path in files.items()
            if not name.endswith(PICTURES)
        ],
    }


def _send(path: Path) -> HTTPResponse:
    """A picture to look at, everything else to save; none of it is ever run as a page."""
    picture = path.suffix == PICTURES
    kind = "image/png" if picture else "application/octet-stream"
    return static_file(
        path.name, path.parent, mimetype=kind, download=False if picture else path.name
    )


def _plotly() -> HTTPResponse:
    """From its package: no other server is asked."""
    import plotly

    return static_file(
        "plotly.min.js", Path(plotly.__file__).parent / "package_data", mimetype="text/javascript"
    )
