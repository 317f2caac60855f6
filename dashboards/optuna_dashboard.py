"""Optuna Dashboard as a WSGI application: the candidates alone, below a path if wanted, with a link
to our pages.

This is the only module that relies on what Optuna Dashboard and Optuna's storages do not promise.
All of it was checked with Optuna Dashboard 0.21.0 and Optuna 5.0.0:

- its JavaScript, `public/bundle.js`, has the absolute paths of `_PATHS`. Below a prefix it is given
  out with these changed, and refused where a later version does not have them any more;
- its one HTML page, below `/dashboard`, names scripts by `src="/static/` and ends in `</body>`;
- it looks at the header Accept-Encoding without asking whether it is there;
- the dashboard reads trials through the method `get_all_trials` of the storage that it is given.

`tests/flow/test_dashboard.py` and `tests/flow/test_baselines.py` fail where a version differs.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import optuna_dashboard
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial

from dashboards.auth.middleware import WsgiApp
from dashboards.templating import page
from nas.errors import StudyError
from nas.study.optuna_internals import quick_storage
from nas.study.roles import is_candidate

_BUNDLE = Path(optuna_dashboard.__file__).parent / "public" / "bundle.js"
DIGITS = 18  # of a number in a path; a database takes nothing above 2^63
_BAD = "400 Bad Request"
_PATHS = {
    'url_prefix:"/dashboard"': 'url_prefix:"{}/dashboard"',
    ".baseURL}}/api/": ".baseURL}}{}/api/",
    "`/artifacts/": "`{}/artifacts/",
    "`/csv/": "`{}/csv/",
}


def optuna_app(storage: RDBStorage, prefix: str) -> WsgiApp:
    """The dashboard of a database, without logins.

    Args:
        storage: the database.
        prefix: path that all its paths begin with, empty or with a slash at its start.

    Raises:
        StudyError: this version of Optuna Dashboard cannot be moved below a path.
    """
    app = optuna_dashboard.wsgi(candidates_only(storage))
    script = None
    if prefix:
        script = gzip.compress(rewrite_paths(_BUNDLE.read_text(), prefix).encode(), 6)

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        environ.setdefault("HTTP_ACCEPT_ENCODING", "")
        if refused := _refused(path, environ.get("QUERY_STRING", "")):
            start_response(refused, [("Content-Type", "text/plain"), ("Content-Length", "0")])
            return []
        if script is not None and path == "/static/bundle.js":
            start_response(
                "200 OK",
                [
                    ("Content-Type", "text/javascript"),
                    ("Content-Encoding", "gzip"),
                    ("Content-Length", str(len(script))),
                ],
            )
            return [script] if environ["REQUEST_METHOD"] == "GET" else []
        if path == "/dashboard" or path.startswith("/dashboard/"):
            return _shell(app, environ, start_response, prefix)
        response: Iterable[bytes] = app(environ, start_response)
        return response

    return answer


def _refused(path: str, query: str) -> str | None:
    """The status of a request whose numbers the dashboard does not look at before it uses them."""
    if any(part.isdecimal() and len(part) > DIGITS for part in path.split("/")):
        return "404 Not Found"
    after = parse_qs(query).get("after", ["0"])
    return None if all(text.isdecimal() and len(text) <= DIGITS for text in after) else _BAD


def candidates_only(storage: RDBStorage) -> BaseStorage:
    """A storage that reads neither baselines nor replicates, which our own pages show.

    They have no parameters, and where one trial has none Optuna calls all parameters equally
    important.

    Args:
        storage: the database; it stays as it is, the change is in a cache around it.
    """
    cached = quick_storage(storage, reports=True)
    read = cached.get_all_trials

    def get_all_trials(*arguments: Any, **more: Any) -> list[FrozenTrial]:
        return [trial for trial in read(*arguments, **more) if is_candidate(trial)]

    cached.get_all_trials = get_all_trials  # type: ignore[method-assign]
    return cached


def rewrite_paths(script: str, prefix: str) -> str:
    """The dashboard's JavaScript for a server below a path.

    Args:
        script: the bundle as it is installed.
        prefix: the path, with a slash at its start.

    Raises:
        StudyError: a path that the bundle is known to have is not there.
    """
    for before, after in _PATHS.items():
        before = before.replace("}}", "}")
        if before not in script:
            raise StudyError(
                "this version of Optuna Dashboard cannot be served with --prefix: give it a host "
                "name of its own"
            )
        script = script.replace(before, after.format(prefix))
    return script


def _shell(
    app: WsgiApp, environ: dict[str, Any], start_response: Callable[..., Any], prefix: str
) -> Iterable[bytes]:
    """The one HTML page of the dashboard, with our link and below the prefix."""
    began: list[Any] = []
    for header in ("HTTP_IF_MODIFIED_SINCE", "HTTP_IF_NONE_MATCH", "HTTP_RANGE"):
        environ.pop(header, None)
    body = app({**environ, "REQUEST_METHOD": "GET"}, lambda *started: began.extend(started))
    html = b"".join(body)
    status, headers = began[:2]
    if status.startswith("200"):
        link = page("beside.html", prefix).encode()
        html = html.replace(b'src="/static/', f'src="{prefix}/static/'.encode()).replace(
            b"</body>", link + b"</body>"
        )
    changed = {"content-length", "last-modified", "etag", "accept-ranges"}
    kept = [
        (name, _local(value, prefix) if name == "Location" else value) for name, value in headers
    ]
    kept = [item for item in kept if item[0].lower() not in changed]
    start_response(status, [*kept, ("Content-Length", str(len(html)))])
    return [html] if environ["REQUEST_METHOD"] == "GET" else []


def _local(location: str, prefix: str) -> str:
    """A redirection without the scheme and the host, which a proxy may have changed, and below the
    prefix.
    """
    return prefix + urlsplit(location).path.removeprefix(prefix)
