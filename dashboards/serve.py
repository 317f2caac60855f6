"""Optuna Dashboard for one database, on this machine only, for reading only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna_dashboard
from optuna.storages import BaseStorage

from nas.errors import StudyError

HOST = "127.0.0.1"  # without a login nobody else may reach it
READING = ("GET", "HEAD", "OPTIONS")

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        """Nothing: the page asks for news every few seconds."""


def make_dashboard(storage: BaseStorage, port: int) -> WSGIServer:
    """A server ready for `serve_forever`; port 0 takes a free one.

    Raises:
        StudyError: the port is taken or not allowed.
    """
    app = reading_only(optuna_dashboard.wsgi(storage))
    try:
        return make_server(HOST, port, app, server_class=_Server, handler_class=_QuietHandler)
    except (OSError, OverflowError) as error:
        raise StudyError(f"port {port} of {HOST} cannot be used: {getattr(error, 'strerror', None) or error}") from None


def reading_only(app: WsgiApp) -> WsgiApp:
    """Refuses what could change a study: the bare dashboard lets anybody delete one."""

    def guarded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in READING:
            return app(environ, start_response)
        start_response("405 Method Not Allowed", [("Content-Type", "text/plain"), ("Allow", ", ".join(READING))])
        return [b"this dashboard is for reading only\n"]

    return guarded
