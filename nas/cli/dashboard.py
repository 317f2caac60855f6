"""`nas dashboard`, `nas-dashboard`: a study in the browser."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli import options
from nas.cli.runner import new_app, run, say
from nas.errors import UserError, need
from nas.utils.imports import absent

if TYPE_CHECKING:
    from dashboards.auth.middleware import Access

LOCAL = ("127.0.0.1", "::1", "localhost")
EVERYWHERE = ("0.0.0.0", "::")
WEB = ("optuna_dashboard", "plotly", "jinja2")  # what the pages are made with


Port = Annotated[
    int, typer.Option(min=0, max=65535, help="Port of this machine; 0 takes a free one.")
]
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all of this machine's.")]
TokenFile = Annotated[
    Path | None, typer.Option(help="File with the token; default: a new one, printed at start.")
]
Prefix = Annotated[
    str, typer.Option(help="Path below which a reverse proxy publishes this, /nas for example.")
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(help="Host name under which a reverse proxy publishes this; may be repeated."),
]


def dashboard(
    storage: options.Storage = options.DEFAULT_STORAGE,
    port: Port = 8080,
    host: Host = LOCAL[0],
    token_file: TokenFile = None,
    allow_edit: Annotated[
        bool, typer.Option("--allow-edit", help="Allow Optuna Dashboard to change and delete.")
    ] = False,
    prefix: Prefix = "",
    allow_host: AllowHost = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate (PEM), for HTTPS.")] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="Its key, where it is not in the same file.")
    ] = None,
) -> None:
    """Serve our plots and Optuna Dashboard behind a login, for reading only."""
    prefix = checked_prefix(prefix)
    if tls_key and not tls_cert:
        raise UserError("--tls-key needs --tls-cert")
    from nas.study.storage import open_storage

    opened = open_storage(storage, create=False, read_only=not allow_edit)
    need("dashboard", *WEB)
    from dashboards.auth.middleware import Access
    from dashboards.auth.sessions import Sessions, new_token, read_token

    with absent("pandas"):  # scikit-learn would take it along, 60 MB that no page needs
        from dashboards.server import make_dashboard, tls_context

    token = read_token(token_file) if token_file else new_token()
    tls = tls_context(tls_cert, tls_key) if tls_cert else None
    access = Access(
        Sessions(token),
        hosts=_host_names(host, allow_host or []),
        prefix=prefix,
        allow_edit=allow_edit,
        encrypted=tls is not None,
    )
    server = make_dashboard(opened, access, host=host, port=port, tls=tls)
    _announce(access, host, server.server_port, None if token_file else token)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


def _host_names(host: str, published: list[str]) -> frozenset[str]:
    """Names by which browsers may ask for the pages, in lower case."""
    from dashboards.auth.middleware import names_of_machine

    return names_of_machine() | {name.lower() for name in (host, *published)}


def checked_prefix(prefix: str) -> str:
    """`/nas` of `/nas/` or `nas`; nothing of `/`.

    Raises:
        UserError: it has characters that a path would need to escape.
    """
    parts = [part for part in prefix.split("/") if part]
    if not all(
        part.replace("-", "").replace("_", "").isalnum() and part.isascii() for part in parts
    ):
        raise UserError(
            f"--prefix must be a path of letters, digits, - and _, for example /nas; got {prefix!r}"
        )
    return "".join(f"/{part}" for part in parts)


def _announce(access: Access, host: str, port: int, token: str | None) -> None:
    """Where it is, and how to get in: a browser keeps what follows # to itself."""
    name = socket.gethostname() if host in EVERYWHERE else f"[{host}]" if ":" in host else host
    url = f"{'https' if access.encrypted else 'http'}://{name}:{port}{access.prefix}/"
    say(f"{url}login#{token}" if token else url, " (Ctrl-C ends it)", flush=True)
    if host not in LOCAL and not access.encrypted:
        say(
            f"nas-dashboard: {host} can be reached by others, and the token travels there as it "
            "is: use --tls-cert, or "
            "127.0.0.1 behind a reverse proxy with TLS",
            file=sys.stderr,
            flush=True,
        )


def main() -> None:
    """Entry point of `nas-dashboard`."""
    app = new_app()
    app.command()(dashboard)
    run(app, "nas-dashboard")
