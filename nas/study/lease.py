"""Who drives a study, and whose its running trials are: two tables of ours in the study's own
database, by its own clock.

SQLite serves one driver. PostgreSQL and MySQL serve many: they decide one after the other what is
next (`nas.study.lock`), and each trial that runs belongs to one of them. What belongs to nobody
alive may be taken.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from nas.errors import StudyError
from nas.study.database_clock import UtcNow
from nas.study.driver_process import driver_name, host_id, is_gone
from nas.study.lock import NoLock, StudyLock
from nas.study.storage import make_tables
from nas.utils.signals import sigterm_as_interrupt

LEASE_S = 60
RENEW_S = 15
LOOK_S = 2  # for a request to stop

_METADATA = sa.MetaData()
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


class LostTrialError(Exception):
    """A trial is another driver's by now: nothing that was to be written of it has been."""


_FENCE: ContextVar[tuple[str, int, str] | None] = ContextVar("trial that is written", default=None)


def _check_fence(connection: Connection) -> None:
    """Undo a transaction that is about to write of a trial which its driver has lost."""
    if not (fence := _FENCE.get()):
        return
    study_uuid, number, token = fence
    this = sa.and_(OWNERS.c.study_uuid == study_uuid, OWNERS.c.number == number)
    owner = connection.execute(sa.select(OWNERS.c.token).where(this).with_for_update())
    if owner.scalar_one_or_none() != token:
        raise LostTrialError


class Lease:
    """One driver's place at a study in a database.

    Optuna's heartbeat finds trials whose process died, too; it does not let another driver go on
    with them under their number, nor serve drivers one after the other.

    Args:
        lock: of the study.
        study_name: for messages.
        study_uuid: the study's, `nas_uuid`.

    Attributes:
        token: identifies this driver.
    """

    def __init__(self, lock: StudyLock, study_name: str, study_uuid: str) -> None:
        self.lock, self.study_name, self.study_uuid = lock, study_name, study_uuid
        self.engine, self.token = lock.engine, str(uuid.uuid4())
        make_tables(self.engine, _METADATA)
        if not sa.event.contains(self.engine, "commit", _check_fence):
            sa.event.listen(self.engine, "commit", _check_fence)

    def exclusive(self) -> AbstractContextManager[None]:
        """Let one driver of the study at a time into a block."""
        return self.lock.exclusive()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be known as a driver while the block runs: renewed every 15 s, given back at its end,
        kept from others for 60 s after a crash. In the block SIGTERM is a `KeyboardInterrupt`, and
        so is a request to stop.

        Raises:
            StudyError: the database serves one driver, and another one lives.
        """
        self._refuse_beside(self.others())
        with self.lock.sole_driver():
            yield from self._held()

    def _held(self) -> Iterator[None]:
        with self.exclusive(), self.engine.begin() as connection:
            self._register(
                connection
            )  # before the look: of two that come at once, SQLite makes the second wait here
            others = self._living(connection)
            self._refuse_beside([driver_name(row.pid, row.host) for row in others])
            alive = [self.token, *(row.token for row in others)]
            dead = sa.and_(DRIVERS.c.study_uuid == self.study_uuid, DRIVERS.c.token.not_in(alive))
            connection.execute(sa.delete(DRIVERS).where(dead))
        stop = threading.Event()
        renewer = threading.Thread(target=self._renew, args=(stop,), daemon=True, name="nas-lease")
        renewer.start()
        try:
            with sigterm_as_interrupt():
                yield
            self.lock.file.check()
        finally:
            stop.set()
            renewer.join()
            with (
                suppress(SQLAlchemyError),
                self.engine.begin() as connection,
            ):  # away: the lease ends by itself
                connection.execute(sa.delete(DRIVERS).where(DRIVERS.c.token == self.token))

    def _refuse_beside(self, others: list[str]) -> None:
        if others and not self.lock.shared:
            raise StudyError(
                f"study {self.study_name!r} is being run by {others[0]}; stop it, or wait "
                f"{LEASE_S} s if it died. SQLite serves one driver; several need PostgreSQL or "
                "MySQL"
            )

    def others(self) -> list[str]:
        """List the other living drivers of the study, as `process PID on HOST`."""
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
        """Make a trial this driver's; returns the token of the driver whose it was, None where it
        was nobody's.
        """
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

    @contextmanager
    def fenced(self, number: int) -> Iterator[None]:
        """In the block no transaction with the database is committed once a trial is another
        driver's: each looks, with the row of the owner locked, before it ends.

        Raises:
            LostTrialError: it is.
        """
        before = _FENCE.set((self.study_uuid, number, self.token))
        try:
            yield
        finally:
            _FENCE.reset(before)

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
        """List the numbers of the trials that belong to other living drivers."""
        with self.engine.connect() as connection:
            return _numbers(connection, self.study_uuid, self._living(connection))

    def _register(self, connection: Connection) -> None:
        values = {
            "token": self.token,
            "study_uuid": self.study_uuid,
            "host": host_id(),
            "pid": os.getpid(),
        }
        connection.execute(
            sa.insert(DRIVERS).values(**values, renewed_at=UtcNow(), asked_to_stop=False)
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
                sa.update(DRIVERS).where(DRIVERS.c.token == self.token).values(renewed_at=UtcNow())
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
        return [row for row in _living(connection, self.study_uuid) if row.token != self.token]


def living_drivers(engine: Engine, study_uuid: str) -> list[str]:
    """List the living drivers of a study, as `process PID on HOST`, for who only reads the
    database: nothing is made in it.
    """
    if not sa.inspect(engine).has_table(DRIVERS.name):
        return []
    with engine.connect() as connection:
        return [driver_name(row.pid, row.host) for row in _living(connection, study_uuid)]


def trials_in_hand(engine: Engine, study_uuid: str) -> set[int]:
    """List the numbers of the trials that living drivers of a study have, for who only reads the
    database.
    """
    if not all(sa.inspect(engine).has_table(table.name) for table in (DRIVERS, OWNERS)):
        return set()
    with engine.connect() as connection:
        return _numbers(connection, study_uuid, _living(connection, study_uuid))


def _numbers(connection: Connection, study_uuid: str, drivers: list[Any]) -> set[int]:
    """Those of the trials that some drivers have."""
    tokens = [row.token for row in drivers]
    theirs = sa.and_(OWNERS.c.study_uuid == study_uuid, OWNERS.c.token.in_(tokens))
    return set(connection.execute(sa.select(OWNERS.c.number).where(theirs)).scalars())


def _living(connection: Connection, study_uuid: str) -> list[Any]:
    asked = sa.select(DRIVERS, UtcNow().label("now")).where(DRIVERS.c.study_uuid == study_uuid)
    return [row for row in connection.execute(asked) if _alive(row)]


class SoleLease:
    """The place at a study in the memory of this process, which nobody else can drive: it has the
    methods of `Lease` that a search calls, and gives every trial to this driver.
    """

    def __init__(self) -> None:
        self.token = str(uuid.uuid4())

    def exclusive(self) -> AbstractContextManager[None]:
        """Let everybody into a block: there is one driver."""
        return nullcontext()

    def held(self) -> AbstractContextManager[None]:
        """Do nothing: there is nobody to be known to."""
        return nullcontext()

    def take(self, number: int) -> str | None:
        """Do nothing: every trial is this driver's. Returns None, as no driver had it before."""
        return None

    def fenced(self, number: int) -> AbstractContextManager[None]:
        """Do nothing: no trial is lost."""
        return nullcontext()

    def owns(self, number: int) -> bool:
        """Whether a trial is this driver's: always."""
        return True

    def of_others(self) -> set[int]:
        """List the trials of other drivers: none."""
        return set()


def lease_of(lock: StudyLock | NoLock, study_name: str, study_uuid: str) -> Lease | SoleLease:
    """Make the place of a new driver at a study; arguments as of `Lease`."""
    return SoleLease() if isinstance(lock, NoLock) else Lease(lock, study_name, study_uuid)


def _alive(driver: Any) -> bool:
    if is_gone(driver.pid, driver.host):
        return False
    renewed_at: datetime = driver.renewed_at
    now = (
        driver.now if isinstance(driver.now, datetime) else datetime.fromisoformat(str(driver.now))
    )
    # A time ahead is of a clock that was set back.
    age = now.replace(tzinfo=None) - renewed_at
    return abs(age) < timedelta(seconds=LEASE_S)
