"""Searches that run without their terminal: on a cluster, or in the background of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from nas.cli.runner import Stopped, print_json, say
from nas.study.schema import STORAGE_VARIABLE

if TYPE_CHECKING:
    from nas.config.spec import SearchSpec

RUN_REQUEST = "nas.cli.run_request"  # the module that such a process runs
EARLY_S = 5  # by then most of what is wrong has been said


def on_cluster(spec: SearchSpec, url: str, *, detach: bool, as_json: bool) -> None:
    """Submit a search as a job, and follow it to its end unless told to detach."""
    from nas.errors import SpecError
    from workers.ray_tune.jobs import follow_job, submit_job

    if as_json and not detach:
        raise SpecError("--json on a cluster needs --detach; nas status --json has the results")
    job_id = submit_job(spec, url, entry=f"python -m {RUN_REQUEST}")
    if as_json:
        print_json({"study": spec.study, "cluster": url, "job": job_id})
        return
    say(
        f"Job {job_id} runs {spec.study!r} on {url}; nas status and nas stop reach it through its "
        "database.",
        file=sys.stderr,
    )
    if detach:
        return
    try:
        succeeded = follow_job(url, job_id)
    except KeyboardInterrupt:
        raise Stopped("The search goes on without this terminal. nas stop ends it.") from None
    if not succeeded:
        raise typer.Exit(1)


def in_background(spec: SearchSpec, *, local: bool, as_json: bool) -> None:
    """Start a search that outlives this terminal; its words go to a file in its output folder.

    Raises:
        UserError: what the search said before it ended within `EARLY_S` seconds.
    """
    from nas.api.mlflow_store import check_store
    from nas.artifacts.trial_files import check_output
    from nas.study.storage import check_storage
    from nas.utils.paths import is_remote

    check_storage(spec.storage)
    check_output(spec.run.output)
    if spec.run.mlflow:
        check_store(spec.run.mlflow)
    folder = Path() if is_remote(spec.run.output) else Path(spec.run.output)
    log = folder.resolve() / f"{spec.study}.log"
    begins = log.stat().st_size if log.exists() else 0
    process = _start(spec, log, local=local)
    _check_started(process, log, begins)
    if as_json:
        print_json({"study": spec.study, "pid": process.pid, "log": str(log)})
    else:
        say(
            f"Process {process.pid} runs {spec.study!r}; its log: {log}. nas stop ends it.",
            file=sys.stderr,
        )


def _start(spec: SearchSpec, log: Path, *, local: bool) -> subprocess.Popen[bytes]:
    """Start the process, with the request in a file beside its log and without a terminal."""
    from nas.study.provenance import public_spec

    request = log.with_name(f"{spec.study}.request.json")
    request.write_text(json.dumps(public_spec(spec)))
    # -P: no Python file of the folder that the user stands in is imported
    command = [sys.executable, "-P", "-m", RUN_REQUEST, str(request)]
    command += ["--local"] if local else []
    with log.open("ab") as file:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            env={**os.environ, STORAGE_VARIABLE: spec.storage},
        )


def _check_started(process: subprocess.Popen[bytes], log: Path, begins: int) -> None:
    """Wait `EARLY_S` seconds; a search that failed by then is an error here. Its words begin in the
    log at byte `begins`.
    """
    from nas.errors import StudyError

    try:
        code = process.wait(timeout=EARLY_S)
    except subprocess.TimeoutExpired:
        return
    if code:
        lines = log.read_bytes()[begins:].decode(errors="replace").strip().splitlines()
        raise StudyError(
            lines[-1].partition(": ")[2]
            if lines
            else f"the search ended with code {code}; see {str(log)!r}"
        )
