"""Our own pages beside Optuna Dashboard: what is asked for is read and drawn at that moment,
nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
from bottle import Bottle, HTTPError, HTTPResponse, request, response, static_file
from markupsafe import Markup
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.engine import Engine

from dashboards.comparison import MOST, compare
from dashboards.context import (
    Drawing,
    TrialCells,
    drawing,
    figure_json,
    study_context,
    trial_cells,
)
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
    weights_of,
)
from nas.errors import UserError
from nas.reports import TrialRow
from nas.study.optuna_internals import quick_storage, study_ids
from nas.study.trial_reading import read_reports

CANNOT_BE_SHOWN = "cannot be shown: it holds what no search of scratch-nas writes"
UNREADABLE = (
    *(ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError),
    UserError,
)
MOST_ID = 2**63 - 1  # what a database takes for a number
# First parts of our paths; all others are Optuna Dashboard's.
SECTIONS = ("", "assets", "compare", "studies")
_KINDS = {"css": "text/css", "js": "text/javascript"}


@dataclass(frozen=True)
class StudyCard:
    """One study on the first page: its number in the database, its name, one line about it, and
    whether something is being trained.
    """

    id: int
    name: str
    summary: str
    running: bool = False


@dataclass(frozen=True)
class TrialContext:
    """Everything that the template of a trial names.

    Args:
        id: Optuna's number of the study in its database.
        name: of the study.
        row: the trial as tables show it.
        drawing: its layout.
        attributes: all that the study keeps of it, as text by name.
        weights: path or URL of its weights; None where they are not kept.
        curves: Plotly figure of its epochs as JSON.
        pictures: names of its drawn detections.
        files: names of its other files, and their sizes in bytes.
    """

    id: int
    name: str
    row: TrialCells
    drawing: Drawing
    attributes: dict[str, str]
    weights: str | None
    curves: Markup
    pictures: Sequence[str]
    files: Sequence[tuple[str, int]]


def pages_app(storage: RDBStorage, prefix: str) -> Bottle:
    """The pages as an application without logins, below the path `prefix`.

    Args:
        storage: database of the studies.
        prefix: path that all links begin with, empty or with a slash at its start.
    """
    app = Bottle()
    cached = quick_storage(storage, reports=False)
    app.get("/")(lambda: _studies_page(cached, prefix))
    app.get("/compare")(lambda: _compare_page(cached, prefix))
    app.get("/assets/<name:re:[a-z]+[.](css|js)>")(_send_asset)
    _add_study_routes(app, cached, prefix, storage.engine)
    return app


def _add_study_routes(app: Bottle, storage: BaseStorage, prefix: str, engine: Engine) -> None:
    def study(study_id: int) -> str:
        with _readable():
            view = _view(storage, study_id)
            curves = read_reports(engine, study_id, view.needed_curves)
            shown = study_context(replace(view, curves=curves), dict(request.query))
            return page("study.html", prefix, shown=shown)

    def trial(study_id: int, number: int) -> str:
        with _readable():
            context = trial_context(_view(storage, study_id), study_id, number)
            return page("trial.html", prefix, shown=context)

    def send_file(study_id: int, number: int, name: str) -> HTTPResponse:
        with _readable():
            view = _view(storage, study_id)
            _row(view, number)
            files = files_of(folder_of(view, number))
        if name not in files:
            raise HTTPError(404, "the trial has no such file")
        return _send(files[name])

    app.get("/studies/<study_id:int>")(study)
    app.get("/studies/<study_id:int>/trials/<number:int>")(trial)
    app.get("/studies/<study_id:int>/trials/<number:int>/files/<name:path>")(send_file)


def _studies_page(storage: BaseStorage, prefix: str) -> str:
    """All studies, the latest first."""
    studies = [
        _card(storage, name, number) for name, number in reversed(study_ids(storage).items())
    ]
    return page("studies.html", prefix, studies=studies)


def _card(storage: BaseStorage, name: str, number: int) -> StudyCard:
    """A study that cannot be shown takes nothing but its own line away."""
    try:
        view = _read(storage, name)
        return StudyCard(number, name, summary(view), view.is_running)
    except UNREADABLE as error:
        return StudyCard(number, name, f"{CANNOT_BE_SHOWN}: {type(error).__name__}", False)


def _compare_page(storage: BaseStorage, prefix: str) -> str:
    """Those studies that the query names, `study=1&study=2`, in its order."""
    asked = list(dict.fromkeys(request.query.getall("study")))
    numbers = [int(text) for text in asked if text.isdecimal() and len(text) <= len(str(MOST_ID))]
    if len(numbers) != len(asked) or not 2 <= len(asked) <= MOST:
        raise HTTPError(400, f"compare two to {MOST} studies, ?study=1&study=2")
    with _readable():
        shown = compare([_view(storage, number) for number in numbers])
        return page("compare.html", prefix, shown=shown)


def _send_asset(name: str) -> HTTPResponse | str:
    response.content_type = _KINDS[name.rpartition(".")[2]]
    if name == "plotly.js":
        return _plotly()
    try:
        return asset(name)
    except FileNotFoundError:
        raise HTTPError(404, "there is no such file") from None


def _read(storage: BaseStorage, name: str) -> StudyView:
    return StudyView.read(optuna.load_study(study_name=name, storage=storage))


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except UNREADABLE as error:
        raise HTTPError(422, f"the study {CANNOT_BE_SHOWN}: {type(error).__name__}") from None


def _view(storage: BaseStorage, study_id: int) -> StudyView:
    if not 0 <= study_id <= MOST_ID:
        raise HTTPError(404, "there is no such study")
    try:
        return _read(storage, storage.get_study_name_from_id(study_id))
    except KeyError:
        raise HTTPError(404, "there is no such study") from None


def _row(view: StudyView, number: int) -> TrialRow:
    if not 0 <= number < len(view.rows):
        raise HTTPError(404, "the study has no such trial")
    return view.rows[number]


def trial_context(view: StudyView, study_id: int, number: int) -> TrialContext:
    """Read everything that the page of a trial shows.

    Raises:
        HTTPError: the study has no trial with that number (404).
    """
    row, folder = _row(view, number), folder_of(view, number)
    files = files_of(folder)
    return TrialContext(
        id=study_id,
        name=view.name,
        row=trial_cells(row),
        drawing=drawing(row),
        attributes=attributes_of(row),
        weights=weights_of(row, folder),
        curves=figure_json(curves(reports_of(folder))),
        pictures=[name for name in files if name.endswith(PICTURES)],
        files=[
            (name, path.stat().st_size)
            for name, path in files.items()
            if not name.endswith(PICTURES)
        ],
    )


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
