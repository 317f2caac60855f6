"""Who drives a study, and whose its running trials are: two tables of ours in the study's own
database, by its own clock.

SQLite serves one driver. PostgreSQL and MySQL serve many: they decide one after the other what is
next (`exclusive`), and each trial that runs belongs to one of them. What belongs to nobody alive
may be taken.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from optuna.storages import InMemoryStorage, RDBStorage
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from nas.errors import StudyError
from nas.utils.signals import sigterm_as_interrupt

LEASE_S = 60
RENEW_S = 15
LOOK_S = 2  # for a request to stop

_METADATA = sa.MetaData()
LOCKS = sa.Table(
    "nas_locks", _METADATA, sa.Column("study_id", sa.Integer, primary_key=True, autoincrement=False)
)
DRIVERS = sa.Table(
    "nas_drivers",
    _METADATA,
    sa.Column("token", sa.String(36), primary_key=True),
    sa.Column("study_uuid", sa.String(36), nullable=False, index=True),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("renewed_at", sa.DateTime, nullable=False),
    sa.Column("asked_to_stop", sa.Boolean, nullable=False),
)
OWNERS = sa.Table(
    "nas_owners",
    _METADATA,
    sa.Column("study_uuid", sa.String(36), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("token", sa.String(36), nullable=False),
)


class Lease:
    """One driver's place at a study.

    Args:
        engine: of the study's database.
        study_id: Optuna's.
        study_name: for messages.
    """

    def __init__(self, engine: Engine, study_id: int, study_name: str) -> None:
        self.engine, self.study_id, self.study_name = engine, study_id, study_name
        self.token, self.study_uuid = str(uuid.uuid4()), ""
        self._shared = engine.dialect.name != "sqlite"
        make_tables(engine, _METADATA)
        try:
            with engine.begin() as connection:
                connection.execute(sa.insert(LOCKS).values(study_id=study_id))
        except IntegrityError:
            pass  # there since an earlier driver

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """One driver at a time inside. A driver that dies there lets the others in."""
        if not self._shared:
            yield
            return
        with self.engine.begin() as connection:
            connection.execute(
                sa.select(LOCKS).where(LOCKS.c.study_id == self.study_id).with_for_update()
            ).all()
            yield

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be known as a driver: renewed every 15 s, given back at the end, lost to nobody for 60 s
        after a crash.

        Raises:
            StudyError: the database serves one driver, and another one lives.
        """
        with self.exclusive(), self.engine.begin() as connection:
            self._register(
                connection
            )  # before the look: of two that come at once, SQLite makes the second wait here
            others = self._living(connection)
            if others and not self._shared:
                where = driver_name(others[0].pid, others[0].host)
                raise StudyError(
                    f"study {self.study_name!r} is being run by {where}; stop it, or wait "
                    f"{LEASE_S} s if it died. SQLite "
                    "serves one driver; several need PostgreSQL or MySQL"
                )
            alive = [self.token, *(row.token for row in others)]
            dead = sa.and_(DRIVERS.c.study_uuid == self.study_uuid, DRIVERS.c.token.not_in(alive))
            connection.execute(sa.delete(DRIVERS).where(dead))
        stop = threading.Event()
        renewer = threading.Thread(target=self._renew, args=(stop,), daemon=True, name="nas-lease")
        renewer.start()
        try:
            with sigterm_as_interrupt():
                yield
        finally:
            stop.set()
            renewer.join()
            with (
                suppress(SQLAlchemyError),
                self.engine.begin() as connection,
            ):  # away: the lease ends by itself
                connection.execute(sa.delete(DRIVERS).where(DRIVERS.c.token == self.token))

    def others(self) -> list[str]:
        """The other living drivers of the study, as `process PID on HOST`."""
        with self.engine.connect() as connection:
            return [driver_name(row.pid, row.host) for row in self._living(connection)]

    def ask_to_stop(self) -> None:
        """Ask all drivers of the study to stop; each looks every two seconds."""
        with self.engine.begin() as connection:
            connection.execute(
                sa.update(DRIVERS)
                .where(DRIVERS.c.study_uuid == self.study_uuid)
                .values(asked_to_stop=True)
            )

    def take(self, number: int) -> str | None:
        """Make a trial this driver's. Returns the token of the one whose it was."""
        this = sa.and_(OWNERS.c.study_uuid == self.study_uuid, OWNERS.c.number == number)
        with self.engine.begin() as connection:
            before = connection.execute(sa.select(OWNERS.c.token).where(this)).scalar_one_or_none()
            connection.execute(sa.delete(OWNERS).where(this))
            connection.execute(
                sa.insert(OWNERS).values(
                    study_uuid=self.study_uuid, number=number, token=self.token
                )
            )
        return before

    def owns(self, number: int) -> bool:
        """Whether a trial is still this driver's: one that slept through its lease may have lost
        it.
        """
        this = sa.and_(OWNERS.c.study_uuid == self.study_uuid, OWNERS.c.number == number)
        with self.engine.connect() as connection:
            return (
                connection.execute(sa.select(OWNERS.c.token).where(this)).scalar_one_or_none()
                == self.token
            )

    def of_others(self) -> set[int]:
        """Numbers of the trials that belong to other living drivers."""
        with self.engine.connect() as connection:
            tokens = [row.token for row in self._living(connection)]
            theirs = sa.and_(OWNERS.c.study_uuid == self.study_uuid, OWNERS.c.token.in_(tokens))
            return (
                set(connection.execute(sa.select(OWNERS.c.number).where(theirs)).scalars())
                if tokens
                else set()
            )

    def _register(self, connection: Connection) -> None:
        values = {
            "token": self.token,
            "study_uuid": self.study_uuid,
            "host": host_id(),
            "pid": os.getpid(),
        }
        connection.execute(
            sa.insert(DRIVERS).values(**values, renewed_at=sa.func.now(), asked_to_stop=False)
        )

    def _renew(self, stop: threading.Event) -> None:
        renewed = time.monotonic()
        while not stop.wait(LOOK_S):
            with suppress(SQLAlchemyError):  # the next time will do: a lease lasts many of them
                if time.monotonic() - renewed >= RENEW_S:
                    self._renew_once()
                    renewed = time.monotonic()
                if self._is_asked_to_stop():
                    os.kill(os.getpid(), signal.SIGTERM)  # as Ctrl-C, see `sigterm_as_interrupt`
                    return

    def _renew_once(self) -> None:
        with self.engine.begin() as connection:
            mine = (
                sa.update(DRIVERS)
                .where(DRIVERS.c.token == self.token)
                .values(renewed_at=sa.func.now())
            )
            if not connection.execute(mine).rowcount:  # taken for dead meanwhile
                self._register(connection)

    def _is_asked_to_stop(self) -> bool:
        with self.engine.connect() as connection:
            return bool(
                connection.execute(
                    sa.select(DRIVERS.c.asked_to_stop).where(DRIVERS.c.token == self.token)
                ).scalar_one_or_none()
            )

    def _living(self, connection: Connection) -> list[Any]:
        """Other drivers of this study: renewed within a lease's time, and not known to be dead."""
        asked = sa.select(DRIVERS, sa.func.now().label("now")).where(
            DRIVERS.c.study_uuid == self.study_uuid, DRIVERS.c.token != self.token
        )
        return [row for row in connection.execute(asked) if _alive(row)]


class SoleLease:
    """The place at a study in the memory of a process, which nobody else can drive; what it does
    see `Lease`.
    """

    def __init__(self) -> None:
        self.token, self.study_uuid = str(uuid.uuid4()), ""

    def exclusive(self) -> AbstractContextManager[None]:
        return nullcontext()

    def held(self) -> AbstractContextManager[None]:
        return nullcontext()

    def take(self, number: int) -> str | None:
        return None

    def owns(self, number: int) -> bool:
        return True

    def of_others(self) -> set[int]:
        return set()


def lease_of(storage: RDBStorage | InMemoryStorage, study_name: str) -> Lease | SoleLease:
    """The place of a new driver at a study."""
    if isinstance(storage, InMemoryStorage):
        return SoleLease()
    return Lease(storage.engine, storage.get_study_id_from_name(study_name), study_name)


def make_tables(engine: Engine, tables: sa.MetaData) -> None:
    """Where they are missing."""
    for _ in tables.tables:
        with suppress(OperationalError, ProgrammingError, IntegrityError):
            return tables.create_all(engine)
        # Another driver has made the same table in the same moment: there is one less to quarrel
        # about.
    return tables.create_all(engine)


def driver_name(pid: int | None = None, host: str | None = None) -> str:
    """For people: of a driver, or of this process."""
    return f"process {pid or os.getpid()} on {(host or host_id()).split('/')[0]}"


def _alive(driver: Any) -> bool:
    if driver.host == host_id() and not _process_exists(driver.pid):
        return False
    renewed_at: datetime = driver.renewed_at
    now = (
        driver.now if isinstance(driver.now, datetime) else datetime.fromisoformat(str(driver.now))
    )
    return now.replace(tzinfo=None) - renewed_at < timedelta(seconds=LEASE_S)


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
