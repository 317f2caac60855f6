"""Optuna Dashboard as a WSGI application, below a path if wanted, with a link to our pages.

Its JavaScript has absolute paths. Below a path of its own it is given out with these changed, and
refused where a later version does not have them any more.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import optuna
import optuna_dashboard
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from dashboards.auth.middleware import WsgiApp
from dashboards.templating import page
from nas.errors import StudyError
from nas.study.roles import is_candidate

_BUNDLE = Path(optuna_dashboard.__file__).parent / "public" / "bundle.js"
_PATHS = {
    'url_prefix:"/dashboard"': 'url_prefix:"{}/dashboard"',
    ".baseURL}}/api/": ".baseURL}}{}/api/",
    "`/artifacts/": "`{}/artifacts/",
    "`/csv/": "`{}/csv/",
}


def optuna_app(storage: BaseStorage, prefix: str) -> WsgiApp:
    """The dashboard of a database; it knows nothing of logins.

    Raises:
        StudyError: this version of Optuna Dashboard cannot be moved below a path.
    """
    app = optuna_dashboard.wsgi(_of_candidates(storage))
    script = gzip.compress(moved(_BUNDLE.read_text(), prefix).encode(), 6) if prefix else None

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        environ.setdefault(
            "HTTP_ACCEPT_ENCODING", ""
        )  # it looks at this header without asking whether it is there
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
        return app(environ, start_response)

    return answer


def _of_candidates(storage: BaseStorage) -> BaseStorage:
    """Reads no baselines and replicates, which our own pages show: they have no parameters, and
    where one trial has none Optuna calls all parameters equally important.
    """
    cached = optuna.storages.get_storage(storage)
    read = cached.get_all_trials

    def get_all_trials(*arguments: Any, **more: Any) -> list[FrozenTrial]:
        return [trial for trial in read(*arguments, **more) if is_candidate(trial)]

    cached.get_all_trials = get_all_trials  # type: ignore[method-assign]
    return cached


def moved(script: str, prefix: str) -> str:
    """Its JavaScript for a server below a path.

    Raises:
        StudyError: a path that it is known to have is not there.
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
    """The one HTML page it has, with our link, and with the paths that the prefix asks for."""
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
