"""Our own pages beside Optuna Dashboard: what is asked for is read and drawn at that moment, nothing is written."""

from __future__ import annotations

from typing import Any

import optuna
from bottle import Bottle, HTTPError, response
from optuna.storages import RDBStorage

from dashboards.html import asset, page

SECTIONS = ("", "assets", "studies")  # first parts of our paths; all others are Optuna Dashboard's
_KINDS = {"css": "text/css", "js": "text/javascript"}


def pages_app(storage: RDBStorage, prefix: str) -> Bottle:
    """The application; it knows nothing of logins."""
    app = Bottle()
    cached = optuna.storages.get_storage(storage)  # finished trials are read once

    @app.get("/")
    def start() -> str:
        return page("studies.html", prefix, studies=_studies(cached))

    @app.get("/assets/<name:re:[a-z]+[.](css|js)>")
    def send_asset(name: str) -> str:
        response.content_type = _KINDS[name.rpartition(".")[2]]
        try:
            return asset(name)
        except FileNotFoundError:
            raise HTTPError(404, "there is no such file") from None

    return app


def _studies(storage: optuna.storages.BaseStorage) -> list[dict[str, Any]]:
    """The latest first."""
    found = [optuna.load_study(study_name=study.study_name, storage=storage) for study in storage.get_all_studies()]
    return [{"id": study._study_id, "name": study.study_name, "said": study.study_name} for study in reversed(found)]
