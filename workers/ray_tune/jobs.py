"""A search as a job on a Ray cluster: our packages and the request travel there, the driver runs
there.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from nas.config.spec import SearchSpec
from nas.errors import MissingDependency, SpecError, StudyError
from nas.study.storage import parse_url
from nas.utils.paths import is_remote
from nas.utils.shown_text import shown
from workers.ray_tune.authentication import WHERE, use_token
from workers.ray_tune.nodes import first_line
from workers.ray_tune.session import package_folders

REQUEST = "request.json"  # in the working directory of the job
SUCCEEDED = "SUCCEEDED"
STARTING_S = 60  # a cluster that has just been started takes no jobs yet


def check_for_cluster(spec: SearchSpec) -> None:
    """Refuse a request that names what only this machine could use.

    Raises:
        SpecError: relative paths, an SQLite file, or a password, which would travel through Ray.
    """
    named = (
        ("data.root", spec.data.root),
        ("run.output", spec.run.output),
        ("recipe.weights", spec.recipe.weights),
        ("run.mlflow", spec.run.mlflow),
    )
    for key, path in named:
        if path and not is_remote(path) and not Path(path).is_absolute():
            raise SpecError(
                f"{key} must be a URL or an absolute path, the same on every machine of the "
                f"cluster; got {path!r}"
            )
    url = parse_url(spec.storage)
    if url.get_backend_name() == "sqlite":
        raise SpecError(
            "storage must be a database server, PostgreSQL or MySQL, for a search on a cluster; "
            "got an SQLite file"
        )
    if url.password or "password" in url.query:
        raise SpecError(
            "storage must not name a password where it travels to a cluster: set NAS_STORAGE on "
            "the cluster's head, "
            "or keep the password there in the database's own file (~/.pgpass, ~/.my.cnf)"
        )


def submit_job(spec: SearchSpec, url: str, entry: str) -> str:
    """Start a search on a cluster.

    Args:
        spec: the request.
        url: of the cluster's Jobs API, `http://head:8265`.
        entry: the command that runs there; the path of the request is added to it.

    Returns:
        The id of the job.

    Raises:
        SpecError: only this machine could use what the request names.
        StudyError: no cluster answers.
        MissingDependency: Ray is not installed, or without what the Jobs API needs.
    """
    check_for_cluster(spec)
    client = _client(url)
    with tempfile.TemporaryDirectory(prefix="scratch-nas-") as name:
        folder = Path(name)
        for package in package_folders():
            shutil.copytree(
                package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__")
            )
        (folder / REQUEST).write_text(json.dumps(spec.to_dict()))
        deadline = time.monotonic() + STARTING_S
        while True:
            try:
                return str(
                    client.submit_job(
                        entrypoint=f"{entry} {REQUEST}",
                        runtime_env={"working_dir": name},
                        metadata={"study": spec.study},
                    )
                )
            except RuntimeError as error:
                if "No available agent" not in str(error) or time.monotonic() > deadline:
                    raise StudyError(f"run.cluster {url!r} refused the job: {error}") from None
            time.sleep(1)


def follow_job(url: str, job_id: str) -> bool:
    """Print what the job prints until it ends; returns whether it succeeded."""
    client = _client(url)

    async def follow() -> None:
        async for text in client.tail_job_logs(job_id):
            print(shown(text), end="", flush=True)

    asyncio.run(follow())
    return bool(client.get_job_status(job_id) == SUCCEEDED)


def _client(url: str) -> Any:
    use_token()
    try:
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient
    except ImportError:
        raise MissingDependency("ray[default]", "cluster") from None
    try:
        logging.getLogger("ray").setLevel(logging.WARNING)  # it talks of uploads and sockets
        return JobSubmissionClient(url)
    except AuthenticationError as error:
        raise StudyError(
            f"run.cluster {url!r}: {first_line(error)}: the cluster's token belongs into {WHERE}"
        ) from None
    except (ImportError, RuntimeError) as error:
        if isinstance(error, ImportError) or "ray[default]" in str(error):
            raise MissingDependency("ray[default]", "cluster") from None
        raise StudyError(f"run.cluster {url!r}: {error}") from None
    except (ConnectionError, ValueError) as error:
        said = str(error).splitlines()[0]
        raise StudyError(
            f"run.cluster {url!r}: no Ray cluster answers there, for example http://head:8265 "
            f"({said})"
        ) from None
