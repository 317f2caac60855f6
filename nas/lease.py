"""Who is driving a study: one lease a study, in the study's own database, timed by the database's clock."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from nas.errors import StudyError

LEASE_S = 60
RENEW_S = 15

_METADATA = sa.MetaData()
LEASES = sa.Table(
    "nas_leases",
    _METADATA,
    sa.Column("study_uuid", sa.String(36), primary_key=True),
    sa.Column("token", sa.String(36), nullable=False),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("renewed_at", sa.DateTime, nullable=False),
)


@contextmanager
def lease(engine: Engine, study_uuid: str, study_name: str) -> Iterator[None]:
    """Hold the study for this process: renewed every 15 s, given back at the end, lost to nobody for 60 s after a crash.

    A lease whose process is known to be dead (same host) is taken over at once.

    Raises:
        StudyError: another live driver holds it.
    """
    _METADATA.create_all(engine)
    token = str(uuid.uuid4())
    _acquire(engine, study_uuid, study_name, token)
    stop = threading.Event()
    renewer = threading.Thread(target=_renew, args=(engine, token, stop), daemon=True, name="nas-lease")
    renewer.start()
    try:
        yield
    finally:
        stop.set()
        renewer.join()
        with engine.begin() as connection:
            connection.execute(sa.delete(LEASES).where(LEASES.c.token == token))


def _acquire(engine: Engine, study_uuid: str, study_name: str, token: str) -> None:
    values = {"token": token, "host": host_id(), "pid": os.getpid(), "renewed_at": sa.func.now()}
    with engine.begin() as connection:
        held = connection.execute(
            sa.select(LEASES, sa.func.now().label("now")).where(LEASES.c.study_uuid == study_uuid)
        ).first()
        if held is None:
            connection.execute(sa.insert(LEASES).values(study_uuid=study_uuid, **values))
            return
        if _alive(held):
            where = f"process {held.pid} on {held.host.split('/')[0]}"
            raise StudyError(f"study {study_name!r} is being run by {where}; stop it, or wait {LEASE_S} s if it died")
        taken = sa.update(LEASES).where(LEASES.c.study_uuid == study_uuid, LEASES.c.token == held.token).values(**values)
        if connection.execute(taken).rowcount != 1:
            raise StudyError(f"study {study_name!r} was just taken by another driver")


def _renew(engine: Engine, token: str, stop: threading.Event) -> None:
    while not stop.wait(RENEW_S):
        try:
            with engine.begin() as connection:
                connection.execute(sa.update(LEASES).where(LEASES.c.token == token).values(renewed_at=sa.func.now()))
        except sa.exc.SQLAlchemyError:
            continue  # the next renewal is in time: a lease lasts four of them


def _alive(held: Any) -> bool:
    if held.host == host_id() and not _process_exists(held.pid):
        return False
    now = held.now if isinstance(held.now, datetime) else datetime.fromisoformat(str(held.now))
    return now.replace(tzinfo=None) - held.renewed_at < timedelta(seconds=LEASE_S)


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def host_id() -> str:
    """Host name, boot and process namespace: a pid means something only where all three agree."""
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    parts = [socket.gethostname(), boot.read_text().strip() if boot.exists() else ""]
    parts.append(os.readlink(namespace) if namespace.exists() else "")
    return "/".join(parts)
