"""The dashboard of a study, and a browser for tests: WSGI calls with the headers and cookies that a
real one sends.
"""

from __future__ import annotations

import hashlib
import io
import re
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode
from wsgiref.util import setup_testing_defaults

import optuna_dashboard

from dashboards.auth.middleware import Access, Guard
from dashboards.auth.sessions import Sessions
from dashboards.pages import pages_app
from dashboards.server import dashboard_app
from helpers.untrained import Driver
from nas.study.storage import open_storage

TOKEN = "correct-horse-battery"
OTHERS = (
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "MOVE",
)  # methods that may change something
HOST = "127.0.0.1:8080"
OWN = {
    "Host": HOST,
    "Origin": f"http://{HOST}",
    "Sec-Fetch-Site": "same-origin",
    "Accept": "text/html",
}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass
class Browser:
    """Keeps its cookie, as a browser does."""

    app: Any
    headers: dict[str, str] = field(default_factory=lambda: dict(OWN))
    cookie: str = ""

    def __call__(self, method: str, path: str, body: bytes = b"", **headers: str | None) -> Answer:
        path, _, query = path.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
        }
        sent = {
            **self.headers,
            "Cookie": self.cookie,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        environ |= {
            f"HTTP_{name.upper().replace('-', '_')}": value
            for name, value in sent.items()
            if value is not None
        }
        environ |= {"CONTENT_TYPE": sent.get("Content-Type") or ""}
        setup_testing_defaults(environ)
        began: list[Any] = []
        parts = self.app(environ, lambda *started: began.extend(started))
        answer = Answer(int(began[0].split()[0]), dict(began[1]), b"".join(parts))
        getattr(parts, "close", lambda: None)()
        if "Set-Cookie" in answer.headers:
            self.cookie = answer.headers["Set-Cookie"].split(";")[0]
        return answer

    def get(self, path: str, **headers: str | None) -> Answer:
        return self("GET", path, **headers)

    def log_in(self, token: str, wanted: str = "/", **headers: str | None) -> Answer:
        return self(
            "POST", "/login", urlencode({"token": token, "next": wanted}).encode(), **headers
        )


def browser_of(driver: Driver, *, logged_in: bool = True, **options: object) -> Browser:
    allow_edit = bool(options.get("allow_edit"))
    storage = open_storage(driver.spec.storage, create=False, read_only=not allow_edit)
    access = Access(Sessions(TOKEN, delay_s=0), **options)
    made = Browser(Guard(dashboard_app(storage, access), access))
    if logged_in:
        assert made.log_in(TOKEN).status == 303
    return made


def routes(driver: Driver) -> list[tuple[str, str]]:
    """Every method and path of Optuna Dashboard and of our pages, numbers and names filled in."""
    storage = open_storage(driver.spec.storage, create=False)
    rules = [
        (route.method, route.rule)
        for app in (optuna_dashboard.wsgi(storage), pages_app(storage, ""))
        for route in app.routes
    ]
    assert len(rules) > 30
    return [(method, path_of(rule)) for method, rule in rules]


def path_of(rule: str) -> str:
    rule = (
        rule.replace("<:re:(/.*)?>", "/studies/1")
        .replace("<study_id:int>", "1")
        .replace("<trial_id:int>", "1")
    )
    filled = re.sub(r"<(number|id):int>", "1", rule)
    filled = filled.replace("<plot_type>", "timeline").replace(
        "<name:re:[a-z]+[.](css|js)>", "plotly.js"
    )
    filled = re.sub(r"<(artifact_id|history_id|filename|path|name)[^/]*>", "abc", filled)
    assert "<" not in filled, filled
    return filled


def content(driver: Driver) -> str:
    """All that the database holds, as a digest."""
    storage = open_storage(driver.spec.storage, create=False)
    with closing(storage.engine.raw_connection()) as connection:
        lines = "\n".join(connection.driver_connection.iterdump())
    return hashlib.sha256(lines.encode()).hexdigest()
