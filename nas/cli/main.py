"""`nas`: all commands under one name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

import nas
from nas.cli.control import logs, resume, stop
from nas.cli.dashboard import dashboard
from nas.cli.data import check_data, convert, make_data, tile
from nas.cli.evaluate import evaluate
from nas.cli.export import export
from nas.cli.listing import list_studies, status
from nas.cli.paper import paper_tables
from nas.cli.plan import plan
from nas.cli.predict import predict
from nas.cli.pretrain import pretrain
from nas.cli.profile import profile
from nas.cli.proxy import proxy_check
from nas.cli.report import report
from nas.cli.runner import new_app, run, say
from nas.cli.submit import submit
from nas.cli.train import train
from nas.cli.verify import reproduce, verify

COMMANDS: dict[str, Callable[..., None]] = {
    "submit": submit,
    "list": list_studies,
    "status": status,
    "logs": logs,
    "stop": stop,
    "resume": resume,
    "export": export,
    "dashboard": dashboard,
    "report": report,
    "train": train,
    "pretrain": pretrain,
    "evaluate": evaluate,
    "predict": predict,
    "verify": verify,
    "reproduce": reproduce,
    "profile": profile,
    "proxy-check": proxy_check,
    "paper-tables": paper_tables,
    "check-data": check_data,
    "convert": convert,
    "tile": tile,
    "plan": plan,
    "make-data": make_data,
}


def _version(requested: bool) -> None:
    if requested:
        say(f"scratch-nas {nas.__version__}")
        raise typer.Exit


def umbrella(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Architecture search for object detectors trained from scratch."""


def main() -> None:
    """Entry point of `nas`."""
    app = new_app(no_args_is_help=True)
    app.callback()(umbrella)
    for name, command in COMMANDS.items():
        app.command(name)(command)
    run(app, "nas")
