"""The server: our pages and Optuna Dashboard behind one guard, a thread for each request."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from optuna.storages import RDBStorage

from dashboards.auth.middleware import READING, Access, Guard, WsgiApp
from dashboards.connections import Connections
from dashboards.optuna_dashboard import optuna_app
from dashboards.pages import SECTIONS, pages_app
from nas.errors import StudyError, UserError

HOST = "127.0.0.1"


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 256
    tls: ssl.SSLContext | None = None

    def __init__(self, *arguments: Any, **more: Any) -> None:
        self.connections = Connections()
        super().__init__(*arguments, **more)

    def get_request(self) -> tuple[Any, Any]:
        """The handshake comes with the first read, in the request's own thread: a slow client
        delays nobody else.
        """
        connection, address = super().get_request()
        if self.tls:
            connection = self.tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        self.connections.open(connection, address[0])
        return connection, address

    def service_actions(self) -> None:
        """Every half second."""
        super().service_actions()
        self.connections.close_late()

    def shutdown_request(self, request: Any) -> None:
        self.connections.forget(request)
        super().shutdown_request(request)

    def setup_environ(self) -> None:
        super().setup_environ()
        if self.tls:
            self.base_environ["HTTPS"] = "on"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: only what goes wrong on the connection arrives here."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class _QuietHandler(WSGIRequestHandler):
    server: _Server

    def parse_request(self) -> bool:
        """Whoever has asked for a page waits for us now, not we for them."""
        whole = super().parse_request()
        if whole and self.command in READING:
            self.server.connections.answering(self.connection)
        return whole

    def log_message(self, *args: Any) -> None:
        """Nothing: the page asks for news every few seconds."""


def make_dashboard(
    storage: RDBStorage,
    access: Access,
    *,
    host: str = HOST,
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> WSGIServer:
    """A server ready for `serve_forever`.

    Args:
        storage: what is shown.
        access: to whom.
        host, port: where it listens; port 0 takes a free one.
        tls: with a certificate, for HTTPS.

    Raises:
        StudyError: the port is taken or not allowed, or Optuna Dashboard cannot be served with the
            prefix.
    """
    server_class: type[_Server] = _Server6 if ":" in host else _Server
    app = dashboard_app(storage, access)
    try:
        server = make_server(
            host, port, app, server_class=server_class, handler_class=_QuietHandler
        )
    except (OSError, OverflowError) as error:
        raise StudyError(
            f"port {port} of {host} cannot be used: {getattr(error, 'strerror', None) or error}"
        ) from None
    cookie = f"{access.cookie}-{server.server_port}"
    server.set_app(Guard(app, replace(access, cookie=cookie)))
    server.tls = tls
    server.setup_environ()
    return server


def dashboard_app(storage: RDBStorage, access: Access) -> WsgiApp:
    """Our pages and Optuna Dashboard as one application, without logins.

    Args:
        storage: what is shown.
        access: decides the prefix of all paths.

    Raises:
        StudyError: Optuna Dashboard cannot be served with the prefix.
    """
    ours, theirs = pages_app(storage, access.prefix), optuna_app(storage, access.prefix)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        section = environ["PATH_INFO"].lstrip("/").partition("/")[0]
        return (ours if section in SECTIONS else theirs)(environ, start_response)

    return app


def tls_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """What a server needs for HTTPS.

    Args:
        certificate: file in PEM form.
        key: file of its private key; None where the certificate's file has it.

    Raises:
        UserError: they cannot be read, or do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        files = " and ".join(repr(str(path)) for path in (certificate, key) if path)
        raise UserError(
            f"the certificate in {files} cannot be used: {error.strerror or error}"
        ) from None
    return context
