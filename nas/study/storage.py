"""The database: any SQLAlchemy URL that Optuna takes, opened with errors that a person can use and
never a password.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import optuna
import sqlalchemy
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    IntegrityError,
    NoSuchModuleError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)

from nas.errors import MissingDependency, StudyError
from nas.study.schema import STORAGE_VARIABLE
from nas.utils.shell import command_line

Result = TypeVar("Result")

EXAMPLES = "sqlite:///nas.db or postgresql+psycopg://user@host/name"
_LOCK_TIMEOUT_S = 30
_READ_ONLY = {
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
}
# Where file locks, and the shared memory of WAL mode, do not hold between machines:
# https://sqlite.org/wal.html
_NETWORK = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "fuse.sshfs",
    "ceph",
    "lustre",
    "gpfs",
    "beegfs",
    "fuse.glusterfs",
    "afs",
}
optuna.logging.set_verbosity(optuna.logging.WARNING)  # commands say themselves what they do
_HARMLESS = {  # of a query
    *("host", "port", "unix_socket", "service", "charset", "sslmode", "sslrootcert", "ssl_ca"),
    *("application_name", "connect_timeout", "target_session_attrs", "mode", "uri"),
}
_DRIVERS = {"mysql": ("MySQLdb", "pymysql"), "postgresql": ("psycopg2", "psycopg")}
_EXTRAS = {"psycopg": "postgres", "psycopg2": "postgres", "pymysql": "mysql", "MySQLdb": "mysql"}


def parse_url(text: str) -> URL:
    """Parse a storage URL. One without a driver gets that which is installed: PyMySQL for `mysql`,
    psycopg for `postgresql`, where SQLAlchemy's own choice is not; `postgres` is `postgresql`.

    Raises:
        StudyError: no URL. The text is not repeated: it may hold a password.
    """
    try:
        url = _with_driver(make_url(text))
    except (ArgumentError, ValueError):  # the latter of a port that is no number
        raise StudyError(f"storage must be a database URL, for example {EXAMPLES}") from None
    if url.get_backend_name() != "sqlite" and "@" in f"{url.host}{url.database}":
        raise StudyError(
            "storage must be a database URL, KIND://USER:PASSWORD@HOST/NAME, with @ in a password "
            "as %40"
        )
    return url


def _with_driver(url: URL) -> URL:
    name = {"postgres": "postgresql"}.get(url.drivername, url.drivername)
    own, other = _DRIVERS.get(name, ("", ""))
    if own and not find_spec(own) and find_spec(other):
        name = f"{name}+{other}"
    return url.set(drivername=name)


def redacted(url: URL) -> str:
    """Write a URL as it may be printed: without its password, and of its query, which may hold one,
    what is known to hold none.
    """
    query = {name: value for name, value in url.query.items() if name in _HARMLESS}
    return url.set(query=query).render_as_string(hide_password=True)


def storage_words(text: str) -> list[str]:
    """The words of a command that name a database; none where the URL holds what is not printed:
    then the environment variable `NAS_STORAGE` has to name it.
    """
    url = parse_url(text)
    whole = url.password is None and set(url.query) <= _HARMLESS
    return ["--storage", redacted(url)] if whole else []


def export_line(study: str, storage: str) -> str:
    """A command line that exports the best candidate of a study; arguments as of `study_line`."""
    return study_line("nas-export", study=study, storage=storage, more=("--out", "best"))


def study_line(*command: str, study: str, storage: str, more: Sequence[str] = ()) -> str:
    """A command line about a study, to be pasted into a shell.

    Args:
        command: its first words.
        study: its name.
        storage: URL of its database; with one that cannot be printed the line says in a comment
            where it is taken from.
        more: further words.
    """
    try:
        words = storage_words(storage)
    except StudyError:  # no URL: whoever may write to a database may have put it there
        words = []
    comment = "" if words else f"{STORAGE_VARIABLE} has the database's URL"
    return command_line(*command, "--study", study, *words, *more, comment=comment)


def check_storage(text: str) -> None:
    """Find out early whether a database can be used, without creating anything.

    Raises:
        StudyError: the folder of an SQLite file does not exist or is on a network, or a server
            cannot be reached.
        MissingDependency: the database's driver is not installed.
    """
    url = parse_url(text)
    if url.get_backend_name() == "sqlite":
        path = sqlite_path(url)
        if path is None:
            raise StudyError(
                "storage sqlite:// without a file is lost at the end: name one, sqlite:///nas.db"
            )
        if not path.parent.is_dir():
            raise StudyError(f"storage {redacted(url)}: folder {str(path.parent)!r} does not exist")
        if path.is_dir():
            raise StudyError(f"storage {redacted(url)}: {str(path)!r} is a folder")
        if (kind := file_system(path.parent)) in _NETWORK:
            raise StudyError(
                f"storage {redacted(url)}: SQLite files break on network file systems, and "
                f"{str(path.parent)!r} is {kind}: "
                "use a "
                "local folder, or PostgreSQL or MySQL"
            )
        return
    engine = _guarded(url, lambda: sqlalchemy.create_engine(url))
    _guarded(url, lambda: engine.connect().close())
    engine.dispose()


def file_system(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """Find the kind of a folder's file system, as Linux names it (`ext4`, `nfs4`); empty where that
    is not known.
    """
    try:
        rows = [line.split()[1:3] for line in mounts.read_text().splitlines()]
    except OSError:
        return ""
    above = {Path(point.replace("\\040", " ")): kind for point, kind in rows}
    return next(
        (
            above[parent]
            for parent in (folder.resolve(), *folder.resolve().parents)
            if parent in above
        ),
        "",
    )


def open_storage(text: str, *, create: bool, read_only: bool = False) -> optuna.storages.RDBStorage:
    """Connect to a database, and make Optuna's tables where they are missing. SQLite runs in WAL
    mode: readers do not block the search.

    Args:
        text: URL of the database.
        create: make the file of an SQLite database where it is missing.
        read_only: the database itself refuses to be changed, and nothing is made or set.

    Raises:
        StudyError: the database cannot be used or reached, its file is not there (unless `create`)
            or is no database.
        MissingDependency: the database's driver is not installed.
    """
    check_storage(text)
    url = parse_url(text)
    path = sqlite_path(url) if url.get_backend_name() == "sqlite" else None
    if path is not None and not create and not path.exists():
        raise StudyError(f"storage {redacted(url)}: there is no file {str(path)!r}")
    if read_only:
        return _guarded(url, lambda: _connect_to_read(url, path))
    arguments: dict[str, Any] = (
        {"connect_args": {"timeout": _LOCK_TIMEOUT_S}} if path else {"pool_pre_ping": True}
    )
    address = url.render_as_string(hide_password=False)
    storage = _guarded(url, lambda: _connect(address, arguments))
    if path:
        _guarded(url, lambda: _use_wal(storage.engine))
    return storage


def make_tables(engine: sqlalchemy.Engine, tables: sqlalchemy.MetaData) -> None:
    """Make tables of ours where they are missing, though other drivers may be making the same ones
    in the same moment.
    """
    for _ in tables.tables:  # each time somebody was quicker, there is one less to quarrel about
        with suppress(OperationalError, ProgrammingError, IntegrityError):
            return tables.create_all(engine)
    return tables.create_all(engine)


def _use_wal(engine: sqlalchemy.Engine) -> None:
    """The file's owner for a moment: SQLite does not wait for its other users here, whatever the
    timeout.
    """
    until = time.monotonic() + _LOCK_TIMEOUT_S
    # Outside a transaction, where alone the mode can change.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while True:
            try:
                connection.execute(
                    sqlalchemy.text("PRAGMA journal_mode=WAL")
                ).scalar_one()  # runs when it is read
                return
            except OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)


def _connect_to_read(url: URL, path: Path | None) -> optuna.storages.RDBStorage:
    if path:
        address = f"file:{quote(str(path.resolve()))}"
        url = url.set(database=address, query={"mode": "ro", "uri": "true"})
        arguments = {"connect_args": {"timeout": _LOCK_TIMEOUT_S}}
        return optuna.storages.RDBStorage(
            url.render_as_string(hide_password=False), engine_kwargs=arguments
        )
    text = url.render_as_string(hide_password=False)
    storage = optuna.storages.RDBStorage(
        text, engine_kwargs={"pool_pre_ping": True}, skip_table_creation=True
    )

    def forbid_changes(connection: Any, record: object) -> None:
        connection.cursor().execute(_READ_ONLY[url.get_backend_name()])
        connection.commit()  # where it is part of a transaction, it would end with it

    if url.get_backend_name() in _READ_ONLY:
        sqlalchemy.event.listen(storage.engine, "connect", forbid_changes)
        storage.engine.dispose()  # the connection that Optuna looked at the tables with
    return storage


def _connect(text: str, arguments: dict[str, Any]) -> optuna.storages.RDBStorage:
    """Drivers that start in the same moment all make the tables; the database lets one of them."""
    for pause_s in (0.3, 0.7, 2):
        try:
            return optuna.storages.RDBStorage(text, engine_kwargs=arguments)
        except (IntegrityError, OperationalError, ProgrammingError):
            time.sleep(pause_s)
    return optuna.storages.RDBStorage(text, engine_kwargs=arguments)


def sqlite_path(url: URL) -> Path | None:
    """Find the file of an SQLite URL; None for a database in memory."""
    return Path(url.database) if url.database and url.database != ":memory:" else None


class DatabaseFile:
    """The file of an SQLite database as it is now, to find out later whether it still is that one.

    Args:
        engine: of the database; one without a file is always the same.
    """

    def __init__(self, engine: sqlalchemy.Engine) -> None:
        sqlite = engine.dialect.name == "sqlite"
        self.path = sqlite_path(engine.url) if sqlite else None
        self._identity = self._look()

    def check(self) -> None:
        """Find out whether the file is still there: what is written into one that was removed is
        lost.

        Raises:
            StudyError: it was removed, or another one is in its place.
        """
        if self._look() != self._identity:
            raise StudyError(
                f"the database {str(self.path)!r} was removed or replaced while the search ran, "
                "and what the search has found since is in no file. The weights of its trials are "
                "where run.output says; put the database back, and the same command goes on"
            )

    def _look(self) -> tuple[int, int] | None:
        if self.path is None:
            return None
        try:
            state = self.path.stat()
        except OSError:
            return None
        return state.st_dev, state.st_ino


def database_name(text: str) -> str:
    """Name a database so that a copy of it has another: the file, or server and database; without
    user and password.

    Args:
        text: storage URL.
    """
    url = parse_url(text)
    if url.get_backend_name() == "sqlite":
        path = sqlite_path(url)
        return str(path.resolve()) if path else ""
    return f"{url.get_backend_name()}://{url.host}:{url.port}/{url.database}"


def _guarded(url: URL, act: Callable[[], Result]) -> Result:
    """Do something with a database; its errors become ours."""
    try:
        return act()
    except NoSuchModuleError:
        raise StudyError(
            f"storage {redacted(url)}: unknown kind of database {url.drivername!r}; for example "
            f"{EXAMPLES}"
        ) from None
    except ImportError as error:
        package = getattr(error, "name", None) or url.drivername
        raise MissingDependency(package, _EXTRAS.get(package, "postgres")) from None
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise StudyError(
            f"storage {redacted(url)} cannot be opened: {driver_message(error)}"
        ) from None
    except RuntimeError as error:  # tables of an older or newer Optuna
        raise StudyError(
            f"storage {redacted(url)} is of another version of Optuna: "
            f"{' '.join(str(error).split())}"
        ) from None


def driver_message(error: BaseException) -> str:
    """Give the first line of what the database's driver said, without the errors of SQLAlchemy and
    Optuna around it, which add statements and links; the kind of error where it said nothing.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(getattr(error, "orig", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__
