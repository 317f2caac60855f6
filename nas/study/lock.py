"""One driver of a study at a time: a row of ours in the study's own database, which a driver locks
while it decides what is next. SQLite locks no rows: there it is a file beside the database.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import sqlalchemy as sa
from filelock import FileLock, Timeout
from optuna.storages import InMemoryStorage
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from nas.errors import StudyError
from nas.study.optuna_internals import Storage
from nas.study.storage import DatabaseFile, make_tables, sqlite_path

WAIT_S = 60  # for a decision of another driver

_METADATA = sa.MetaData()
LOCKS = sa.Table(
    "nas_locks", _METADATA, sa.Column("study_id", sa.Integer, primary_key=True, autoincrement=False)
)


class StudyLock:
    """The lock of one study.

    Args:
        engine: of the study's database.
        study_id: Optuna's key of the study.
    """

    def __init__(self, engine: Engine, study_id: int) -> None:
        self.engine, self.study_id = engine, study_id
        self.shared = engine.dialect.name != "sqlite"  # whether several drivers may come
        self.file = DatabaseFile(engine)
        make_tables(engine, _METADATA)
        try:
            with engine.begin() as connection:
                connection.execute(sa.insert(LOCKS).values(study_id=study_id))
        except IntegrityError:
            pass  # there since an earlier driver

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Let one driver at a time into the block. A driver that dies there lets the others in.

        Raises:
            StudyError: the file of the database has been removed or replaced.
        """
        if not self.shared:
            with self._file_lock("deciding", WAIT_S):
                self.file.check()
                yield
            return
        with self.engine.begin() as connection:
            connection.execute(
                sa.select(LOCKS).where(LOCKS.c.study_id == self.study_id).with_for_update()
            ).all()
            yield

    def sole_driver(self) -> AbstractContextManager[object]:
        """Let one process into the block while it lives, whatever the clocks say; with a database
        that serves several drivers, everybody.

        Raises:
            StudyError: another process is there.
        """
        return nullcontext() if self.shared else self._file_lock("driver", 0)

    @contextmanager
    def _file_lock(self, name: str, wait_s: float) -> Iterator[None]:
        """Files of a lock are never removed: whoever waits for one would wait for another's."""
        if not (path := sqlite_path(self.engine.url)):
            yield
            return
        lock = FileLock(path.with_name(f".{path.name}.{self.study_id}.{name}"))
        try:
            with lock.acquire(timeout=wait_s):
                yield
        except Timeout:
            raise StudyError(
                f"another process drives a study of {str(path)!r}; stop it. SQLite serves one "
                "driver; several need PostgreSQL or MySQL"
            ) from None


class NoLock:
    """The lock of a study in the memory of this process, where nobody else comes."""

    def exclusive(self) -> AbstractContextManager[None]:
        """Let everybody into the block."""
        return nullcontext()


def lock_of(storage: Storage, study_name: str) -> StudyLock | NoLock:
    """Get the lock of a study, made where it is missing.

    Raises:
        KeyError: there is no study of that name.
    """
    if isinstance(storage, InMemoryStorage):
        return NoLock()
    return StudyLock(storage.engine, storage.get_study_id_from_name(study_name))
