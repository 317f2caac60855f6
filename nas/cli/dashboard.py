"""`nas dashboard`, `nas-dashboard`: a study in the browser."""

from __future__ import annotations

from typing import Annotated

import typer

from nas.cli import options
from nas.cli.console import new_app, run


def dashboard(
    storage: options.Storage = options.DEFAULT_STORAGE,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of this machine; 0 takes a free one.")] = 8080,
) -> None:
    """Serve Optuna Dashboard on 127.0.0.1, for reading only."""
    from importlib.util import find_spec

    from nas.errors import MissingDependency
    from nas.storage import open_storage

    opened = open_storage(storage, create=False)
    if find_spec("optuna_dashboard") is None:
        raise MissingDependency("optuna-dashboard", "dashboard")
    from dashboards.serve import HOST, make_dashboard

    server = make_dashboard(opened, port)
    print(f"http://{HOST}:{server.server_port}/  (Ctrl-C ends it)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


def main() -> None:
    """Entry point of `nas-dashboard`."""
    app = new_app()
    app.command()(dashboard)
    run(app, "nas-dashboard")
