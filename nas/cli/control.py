"""`nas stop` and `nas resume`: end a search from elsewhere, and go on with one from what its study
remembers.
"""

from __future__ import annotations

import time
from datetime import UTC
from typing import Annotated

import typer

from nas.cli import options
from nas.cli.runner import given, say

STOP_S = 30  # a driver looks every two seconds and then ends its workers


def stop(study: options.Study = None, storage: options.Storage = options.DEFAULT_STORAGE) -> None:
    """End a running search from anywhere that reaches its database; nothing is lost, `nas resume`
    goes on with it.
    """
    from nas.errors import StudyError
    from nas.study.leaderboard import load_study, search_uuid
    from nas.study.lease import Lease
    from nas.study.lock import StudyLock
    from nas.study.optuna_internals import id_in_storage
    from nas.study.storage import open_storage, study_line

    opened = open_storage(storage, create=False)
    loaded = load_study(opened, study)
    lease = Lease(
        StudyLock(opened.engine, id_in_storage(loaded)), loaded.study_name, search_uuid(loaded)
    )
    if not (drivers := lease.others()):
        say(f"{loaded.study_name} is not running.")
        return
    lease.ask_to_stop()
    deadline = time.monotonic() + STOP_S
    while left := lease.others():
        if time.monotonic() > deadline:
            raise StudyError(
                f"study {loaded.study_name!r} is still being run by {', '.join(left)} after "
                f"{STOP_S} s"
            )
        time.sleep(0.2)
    line = study_line("nas", "resume", study=loaded.study_name, storage=storage)
    say(f"Stopped {', '.join(drivers)}. Go on with: {line}")


def logs(
    study: options.Study = None,
    storage: options.Storage = options.DEFAULT_STORAGE,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until nobody runs the search any more.")
    ] = False,
) -> None:
    """Print what happened in a search, from anywhere that reaches its database."""
    from nas.study.event_log import WRITE_S, EventLog
    from nas.study.leaderboard import load_study, search_uuid
    from nas.study.lease import living_drivers
    from nas.study.storage import open_storage

    opened = open_storage(storage, create=False, read_only=True)
    journal = EventLog(opened.engine, search_uuid(load_study(opened, study)), read_only=True)
    last, running = 0, True
    while running:
        running = follow and bool(living_drivers(opened.engine, journal.study_uuid))
        for line in journal.read(after=last):
            at = line.at.replace(tzinfo=UTC).astimezone()
            say(f"{at:%Y-%m-%d %H:%M:%S}  {line.driver}  {line.text}", flush=True)
            last = line.id
        if running:
            time.sleep(WRITE_S)


def resume(
    study: options.Study = None,
    storage: options.Storage = options.DEFAULT_STORAGE,
    trials: Annotated[
        int | None, typer.Option(help="Candidates to train, those of earlier runs included.")
    ] = None,
    time_limit: Annotated[
        str | None, typer.Option(help="Wall time, that of earlier commands included.")
    ] = None,
    mlflow: options.Mlflow = None,
    local: options.Local = False,
    detach: options.Detach = False,
    as_json: options.Json = False,
) -> None:
    """Go on with a search as its study remembers it."""
    began_at = time.time()
    from nas.api.requests import check_files
    from nas.cli.dispatch import dispatch
    from nas.config.parsing import parse_model
    from nas.config.spec import SearchSpec
    from nas.study.leaderboard import load_study, search_uuid
    from nas.study.storage import open_storage
    from nas.utils.paths import absolute
    from nas.utils.url_secrets import check_no_secret

    loaded = load_study(open_storage(storage, create=False), study)
    search_uuid(loaded)
    written = {**loaded.user_attrs["nas_spec"], "storage": storage}
    changes = given({"trials": trials, "time_limit": time_limit})
    written["search"] = {**written["search"], **changes}
    if mlflow is not None:
        check_no_secret("--mlflow", mlflow)
        run = written["run"]
        written["run"] = {**run, "mlflow": mlflow if run["cluster"] else absolute(mlflow)}
    request = parse_model(SearchSpec, written)
    check_files(request)
    dispatch(request, local=local, detach=detach, as_json=as_json, began_at=began_at)
