"""A tracking server of MLflow, as far as its client asks for runs: a store in a folder behind HTTP.

MLflow's own server needs packages that `mlflow-skinny` does not have.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos import service_pb2 as api
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.proto_json_utils import message_to_json, parse_dict

API, ARTIFACTS = "/api/2.0/mlflow/", "/api/2.0/mlflow-artifacts/artifacts/"


class MlflowServer(ThreadingHTTPServer):
    """Serves on a free port of this machine, as long as its context lasts.

    Args:
        store: an SQLite database of MLflow.
        folder: of artifacts.

    Attributes:
        status: answers everything with this code, unless it is 200.
        users: user and password of every request, None where it had none.
        asked: what every request asked for.
    """

    daemon_threads = True

    def __init__(self, store: str, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.store = SqlAlchemyStore(store, "mlflow-artifacts:/")
        self.folder, self.status, self.lock = folder, 200, Lock()
        self.users: list[str | None] = []
        self.asked: list[str] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def __enter__(self) -> MlflowServer:
        Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: MlflowServer

    def do_GET(self) -> None:
        self.respond(lambda: self.ask(dict(parse_qsl(urlsplit(self.path).query))))

    def do_POST(self) -> None:
        self.respond(lambda: self.ask(json.loads(self.body())))

    def do_PUT(self) -> None:
        self.respond(self.keep)

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def keep(self) -> str:
        path = self.server.folder / self.path.removeprefix(ARTIFACTS)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.body())
        return "{}"

    def ask(self, fields: dict[str, Any]) -> str:
        """The answer of the store to a request."""
        kind, answer = ANSWERS[urlsplit(self.path).path.removeprefix(API)]
        request, response = kind(), kind.Response()
        parse_dict(fields, request)
        answer(self.server.store, request, response)
        return message_to_json(response)

    def respond(self, answer: Callable[[], str]) -> None:
        scheme, _, coded = self.headers.get("Authorization", "").partition(" ")
        self.server.users.append(base64.b64decode(coded).decode() if scheme == "Basic" else None)
        self.server.asked.append(urlsplit(self.path).path)
        status, text = self.server.status, '{"error_code": "INTERNAL_ERROR", "message": "resting"}'
        try:
            if status == 200:
                with self.server.lock:
                    text = answer()
        except MlflowException as error:
            status, text = error.get_http_status_code(), error.serialize_as_json()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())


def _get_experiment(store: SqlAlchemyStore, request: Any, response: Any) -> None:
    found = store.get_experiment_by_name(request.experiment_name)
    if not found:
        raise MlflowException("no such experiment", error_code=RESOURCE_DOES_NOT_EXIST)
    response.experiment.MergeFrom(found.to_proto())


def _create_experiment(store: SqlAlchemyStore, request: Any, response: Any) -> None:
    response.experiment_id = store.create_experiment(request.name)


def _create_run(store: SqlAlchemyStore, request: Any, response: Any) -> None:
    tags = [RunTag.from_proto(tag) for tag in request.tags]
    experiment, begin = request.experiment_id, request.start_time
    run = store.create_run(experiment, request.user_id, begin, tags, request.run_name)
    response.run.MergeFrom(run.to_proto())


def _get_run(store: SqlAlchemyStore, request: Any, response: Any) -> None:
    response.run.MergeFrom(store.get_run(request.run_id).to_proto())


def _search_runs(store: SqlAlchemyStore, request: Any, response: Any) -> None:
    page = store.search_runs(
        list(request.experiment_ids), request.filter, ViewType.ACTIVE_ONLY, request.max_results
    )
    response.runs.extend(run.to_proto() for run in page)


def _update_run(store: SqlAlchemyStore, request: Any, response: Any) -> None:
    end = request.end_time if request.HasField("end_time") else None
    info = store.update_run_info(request.run_id, request.status, end, None)
    response.run_info.MergeFrom(info.to_proto())


def _log_batch(store: SqlAlchemyStore, request: Any, response: Any) -> None:
    store.log_batch(
        request.run_id,
        [Metric.from_proto(metric) for metric in request.metrics],
        [Param.from_proto(param) for param in request.params],
        [RunTag.from_proto(tag) for tag in request.tags],
    )


def _get_history(store: SqlAlchemyStore, request: Any, response: Any) -> None:
    history = store.get_metric_history(request.run_id, request.metric_key)
    response.metrics.extend(metric.to_proto() for metric in history)


ANSWERS: dict[str, tuple[Any, Callable[[SqlAlchemyStore, Any, Any], None]]] = {
    "experiments/get-by-name": (api.GetExperimentByName, _get_experiment),
    "experiments/create": (api.CreateExperiment, _create_experiment),
    "runs/create": (api.CreateRun, _create_run),
    "runs/get": (api.GetRun, _get_run),
    "runs/search": (api.SearchRuns, _search_runs),
    "runs/update": (api.UpdateRun, _update_run),
    "runs/log-batch": (api.LogBatch, _log_batch),
    "metrics/get-history": (api.GetMetricHistory, _get_history),
}
