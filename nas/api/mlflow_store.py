"""Where MLflow keeps runs, and MLflow itself set up so that a search does not suffer from it.

A folder holds an SQLite database and the artifacts: MLflow has given up its older form, a file for
each value. Anything else is a tracking server.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from sqlalchemy import URL

from nas.errors import MissingDependency, SpecError, StudyError, need
from nas.utils.files import ensure_writable
from nas.utils.paths import is_remote, to_path
from nas.utils.shell import command_line
from nas.utils.url_secrets import with_secrets, without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE, ARTIFACTS = "mlflow.db", "artifacts"  # in the folder of a store
LONGEST_REASON = 200  # characters
SETTINGS = {  # unless the environment says otherwise
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # whoever asks repeats it
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",  # seconds; its own default is two minutes
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # its errors become ours
}
SILENT = {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}


def check_store(where: str) -> None:
    """Find out, before anything is trained, whether runs can be kept somewhere; no server is asked.

    Args:
        where: folder of a store, made where it does not exist, or URL of a tracking server.

    Raises:
        MissingDependency: MLflow is not installed.
        SpecError: the URL names an environment variable that is not set, or the folder holds runs
            in MLflow's older form.
        StudyError: the folder cannot be written.
    """
    need("mlflow", "mlflow")
    if is_remote(where):
        with_secrets(where)
        return
    folder = to_path(where)
    if not (folder / DATABASE).exists() and any(folder.glob("*/meta.yaml")):
        target = str(URL.create("sqlite", database=str(folder / DATABASE)))
        line = command_line("mlflow", "migrate-filestore", "--source", folder, "--target", target)
        raise SpecError(
            f"run.mlflow must name another folder, or one whose runs are in a database: {line} "
            f"makes one of the files in {where!r}"
        )
    ensure_writable(folder, f"run.mlflow {where!r}", StudyError)


@contextmanager
def mlflow_settings(where: str) -> Iterator[None]:
    """Let MLflow fail soon, print nothing and send nothing to its makers while the block runs, and
    know the password of a server, which it would print as a part of its URL.

    Args:
        where: folder of a store, or URL of a tracking server.
    """
    free = {name: value for name, value in SETTINGS.items() if name not in os.environ}
    settings = {**free, **SILENT, **_credentials(where)}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def open_store(where: str) -> MlflowClient:
    """Open a store, or get ready to ask a tracking server; takes seconds, in which MLflow is
    imported and a new database made.

    Raises:
        MissingDependency: MLflow is not installed.
        StudyError: the database in the folder cannot be used.
    """
    try:
        from mlflow import MlflowClient
    except ImportError:
        raise MissingDependency("mlflow-skinny", "mlflow") from None
    try:
        return MlflowClient(tracking_uri=_uri(where))
    except Exception as error:  # MLflow's, SQLAlchemy's or Alembic's, which have no common class
        raise StudyError(f"run.mlflow {where!r} cannot be used: {reason(error, where)}") from None


def artifacts_uri(where: str) -> str | None:
    """Where artifacts of a store go: into its folder; None where a server decides it."""
    return None if is_remote(where) else (to_path(where) / ARTIFACTS).as_uri()


def reason(error: BaseException, where: str) -> str:
    """Say in a line why MLflow failed: what lies below its own error, which repeats the request,
    without the secret of the URL.
    """
    while below := error.__cause__ or error.__context__:
        if not str(below):
            break
        error = below
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return without_secrets(lines[0], where)[:LONGEST_REASON]


def _uri(where: str) -> str:
    if not is_remote(where):
        return URL.create("sqlite", database=str(to_path(where) / DATABASE)).render_as_string()
    parts = urlsplit(with_secrets(where))
    host = parts.netloc.rpartition("@")[2] if parts.password else parts.netloc
    return parts._replace(netloc=host).geturl()


def _credentials(where: str) -> dict[str, str]:
    """User and password of a server's URL, as MLflow takes them from the environment."""
    parts = urlsplit(with_secrets(where) if is_remote(where) else "")
    if not parts.password:
        return {}
    return {
        "MLFLOW_TRACKING_USERNAME": unquote(parts.username or ""),
        "MLFLOW_TRACKING_PASSWORD": unquote(parts.password),
    }
