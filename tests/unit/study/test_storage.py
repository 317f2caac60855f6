"""Databases: opened, refused in one line, never with a password; leases by the database's clock."""

from __future__ import annotations

import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from helpers.commands import DEADLINE_S
from helpers.untrained import Driver
from optuna.exceptions import UpdateFinishedTrialError

import nas.study.storage
from nas.errors import StudyError
from nas.study.driver_process import host_id
from nas.study.lease import DRIVERS, LEASE_S, Lease, LostTrialError
from nas.study.lock import StudyLock
from nas.study.optuna_internals import set_attributes
from nas.study.retry import retry_while_unreachable
from nas.study.storage import (
    check_storage,
    driver_message,
    export_line,
    file_system,
    open_storage,
    parse_url,
    redacted,
    storage_words,
)


def test_sqlite_is_created_in_wal_mode(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/nas.db"
    with pytest.raises(StudyError, match="there is no file"):
        open_storage(url, create=False)
    assert list(tmp_path.iterdir()) == []
    open_storage(url, create=True)
    assert sqlite3.connect(tmp_path / "nas.db").execute("PRAGMA journal_mode").fetchone() == (
        "wal",
    )
    open_storage(url, create=False)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nas.db", "must be a database URL, for example sqlite:///nas.db"),
        ("://user:secret@", "must be a database URL"),
        ("sqlite://", "without a file"),
        ("sqlite:///no/such/folder/nas.db", "folder 'no/such/folder' does not exist"),
        ("nosuchdb://user:secret@host/x", "unknown kind of database 'nosuchdb'"),
        (
            "postgresql+psycopg://user:secret@127.0.0.1:1/x?password=secret",
            "cannot be opened|needs the package psycopg",
        ),
    ],
)
def test_refusals_name_no_password(
    url: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for act in (check_storage, lambda text: open_storage(text, create=True)):
        with pytest.raises(ValueError, match=words) as error:
            act(url)
        assert "secret" not in str(error.value)
        assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_many_open_a_new_file_at_once(tmp_path: Path):
    with ThreadPoolExecutor(6) as threads:
        opened = list(
            threads.map(
                lambda _: open_storage(f"sqlite:///{tmp_path}/nas.db", create=True), range(6)
            )
        )
    assert all(storage.get_all_studies() == [] for storage in opened)


def test_a_file_in_use_is_put_into_wal_mode_when_it_is_free(tmp_path: Path):
    """A writer in the old mode: SQLite refuses the change at once, whatever the timeout."""
    optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/nas.db")
    writer = sqlite3.connect(tmp_path / "nas.db", check_same_thread=False)
    writer.execute("BEGIN IMMEDIATE")
    released = threading.Timer(0.5, writer.rollback)
    released.start()
    open_storage(f"sqlite:///{tmp_path}/nas.db", create=True)
    released.join()
    assert sqlite3.connect(tmp_path / "nas.db").execute("PRAGMA journal_mode").fetchone() == (
        "wal",
    )


def test_a_file_that_is_no_database(tmp_path: Path):
    (tmp_path / "nas.db").write_text("something else entirely, and long enough to be looked at")
    with pytest.raises(StudyError, match="cannot be opened: file is not a database"):
        open_storage(f"sqlite:///{tmp_path}/nas.db", create=True)


def test_what_the_driver_said():
    with (
        sa.create_engine("sqlite://").connect() as connection,
        pytest.raises(sa.exc.SQLAlchemyError) as failed,
    ):
        connection.execute(sa.text("SELECT 1 FROM nowhere"))
    wrapped = RuntimeError("the storage\nfailed")
    wrapped.__cause__ = failed.value
    assert driver_message(wrapped) == "no such table: nowhere"
    assert driver_message(ConnectionError("first line\nsecond")) == "first line"
    assert driver_message(ConnectionError()) == "ConnectionError"


def test_sqlite_on_a_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/home {tmp_path}/my\\040home nfs4 rw 0 0\n")
    (tmp_path / "my home" / "deep").mkdir(parents=True)
    assert file_system(tmp_path / "my home" / "deep", mounts) == "nfs4"
    assert file_system(tmp_path, mounts) == "ext4"
    assert file_system(tmp_path, tmp_path / "gone") == ""
    monkeypatch.setattr(nas.study.storage, "file_system", lambda folder: "nfs4")
    with pytest.raises(
        StudyError,
        match="SQLite files break on network file systems, and .* is nfs4: use a local folder, or",
    ):
        check_storage(f"sqlite:///{tmp_path}/nas.db")


def test_shown_urls_hide_passwords():
    assert (
        redacted(parse_url("postgresql+psycopg://me:secret@host/db?password=secret"))
        == "postgresql+psycopg://me:***@host/db"
    )


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:///nas.db", ["--storage", "sqlite:///nas.db"]),
        (
            "postgresql+psycopg://postgres@/nas?host=/var/run/postgresql",
            ["--storage", "postgresql+psycopg://postgres@/nas?host=%2Fvar%2Frun%2Fpostgresql"],
        ),
        ("postgresql+psycopg://me:secret@host/db", []),
        ("postgresql+psycopg://me:***@host/db", []),
        ("postgresql+psycopg://me@host/db?password=secret", []),
    ],
)
def test_words_of_a_command_reach_the_database_or_are_not_there(url: str, words: list[str]):
    assert storage_words(url) == words
    line = export_line("my cells", url)
    assert shlex.split(line, comments=True) == [
        *("nas-export", "--study", "my cells"),
        *words,
        *("--out", "best"),
    ]
    assert ("NAS_STORAGE" in line) == (not words)
    if words:
        assert parse_url(words[1]) == parse_url(url)


def test_a_database_that_was_removed_or_replaced_takes_no_decision(tmp_path: Path):
    driver = Driver(tmp_path)
    driver.train()
    copy = tmp_path / "copy.db"
    shutil.copy(tmp_path / "nas.db", copy)
    (tmp_path / "nas.db").unlink()
    with pytest.raises(StudyError, match=r"nas.db' was removed or replaced while"):
        driver.study.ask()
    copy.rename(tmp_path / "nas.db")
    with pytest.raises(StudyError, match="was removed or replaced"):
        driver.study.ask()


def test_a_damaged_database_is_not_waited_for(tmp_path: Path):
    class Search:
        def on_away(self, reason: str, pause_s: float) -> None:
            raise AssertionError(reason)

        @retry_while_unreachable
        def ask(self) -> None:
            raise sa.exc.OperationalError("", {}, Exception("database disk image is malformed"))

    with pytest.raises(StudyError, match=r"damaged \(database disk image is malformed\)"):
        Search().ask()


@pytest.fixture
def engine(tmp_path: Path) -> sa.Engine:
    return open_storage(f"sqlite:///{tmp_path}/nas.db", create=True).engine


def lease(engine: sa.Engine, study_uuid: str, name: str) -> AbstractContextManager[None]:
    return Lease(StudyLock(engine, int(study_uuid[-1])), name, study_uuid).held()


def held(engine: sa.Engine) -> list:
    with engine.connect() as connection:
        return list(connection.execute(sa.select(DRIVERS)))


def test_one_driver_at_a_time(engine: sa.Engine):
    with lease(engine, "uuid-1", "cells"):
        (row,) = held(engine)
        assert (row.pid, row.host) == (os.getpid(), host_id())
        with (
            pytest.raises(StudyError, match=f"'cells' is being run by process {os.getpid()} on"),
            lease(engine, "uuid-1", "cells"),
        ):
            pass
        with lease(engine, "uuid-2", "other"):
            assert len(held(engine)) == 2
    assert held(engine) == []
    with lease(engine, "uuid-1", "cells"):
        pass


def test_of_drivers_that_come_in_the_same_moment_one_stays(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
):
    def looks_slowly(
        self: Lease, connection: sa.Connection, look: Callable = Lease._living
    ) -> list:
        found = look(self, connection)
        time.sleep(0.3)
        return found

    monkeypatch.setattr(Lease, "_living", looks_slowly)

    def come(start: threading.Barrier, end: threading.Barrier, seen: list[bool]) -> None:
        start.wait()
        try:
            with lease(engine, "uuid-1", "cells"):
                seen.append(True)
                end.wait(timeout=DEADLINE_S)
        except StudyError:
            seen.append(False)
            end.wait(timeout=DEADLINE_S)

    start, end, seen = threading.Barrier(3), threading.Barrier(3), []
    drivers = [threading.Thread(target=come, args=(start, end, seen)) for _ in range(3)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert sorted(seen) == [False, False, True]


def test_a_lease_is_given_back_after_an_interrupt(engine: sa.Engine):
    with pytest.raises(KeyboardInterrupt), lease(engine, "uuid-1", "cells"):
        raise KeyboardInterrupt
    assert held(engine) == []


def leave_behind(engine: sa.Engine, **changes: object) -> None:
    """A lease as a process that died left it."""
    with lease(engine, "uuid-0", "makes the table"):
        pass
    values = {
        "study_uuid": "uuid-1",
        "token": "dead",
        "host": host_id(),
        "pid": os.getpid(),
        "renewed_at": sa.func.now(),
        "asked_to_stop": False,
    }
    with engine.begin() as connection:
        connection.execute(sa.insert(DRIVERS).values({**values, **changes}))


@pytest.mark.parametrize("ahead_s", [60, 3600, -60])
def test_a_lease_of_another_time_is_over(engine: sa.Engine, ahead_s: int):
    """Of a clock that was set back, or of a driver that is long gone."""
    with engine.connect() as connection:
        now = datetime.fromisoformat(str(connection.execute(sa.select(sa.func.now())).scalar_one()))
    leave_behind(engine, host="elsewhere", renewed_at=now + timedelta(seconds=ahead_s + 5))
    if ahead_s > 0:
        with lease(engine, "uuid-1", "cells"):
            assert len(held(engine)) == 1
    else:
        with pytest.raises(StudyError, match="on elsewhere;"), lease(engine, "uuid-1", "cells"):
            pass


def test_a_living_process_counts_whatever_its_clock_says(engine: sa.Engine):
    with lease(engine, "uuid-1", "cells"):
        with engine.begin() as connection:
            connection.execute(sa.update(DRIVERS).values(renewed_at=datetime(2000, 1, 1)))
        with (
            pytest.raises(StudyError, match="another process drives a study of"),
            lease(engine, "uuid-1", "cells"),
        ):
            pass


def test_nothing_is_written_of_a_trial_that_was_lost(engine: sa.Engine):
    """Taken between the look and the write: the transaction is undone, Optuna's own too."""
    storage = optuna.storages.RDBStorage(str(engine.url))
    study = optuna.create_study(storage=storage, study_name="cells")
    trial = study.ask()
    mine, theirs = (Lease(StudyLock(storage.engine, 1), "cells", "uuid-1") for _ in range(2))
    mine.take(0)
    with mine.fenced(0):
        set_attributes(storage, trial, {"map": 0.1})
        trial.report(0.1, 1)
    theirs.take(0)
    writes: list[Callable[[], object]] = [
        lambda: set_attributes(storage, trial, {"map": 0.2}),
        lambda: trial.report(0.2, 2),
        lambda: study.tell(trial, 0.2),
    ]
    for write in writes:
        with pytest.raises(LostTrialError), mine.fenced(0):
            write()
    (found,) = optuna.load_study(storage=str(engine.url), study_name="cells").trials
    assert found.user_attrs == {"map": 0.1}
    assert found.intermediate_values == {1: 0.1}
    assert found.state == optuna.trial.TrialState.RUNNING
    with theirs.fenced(0):
        study.tell(trial, 0.3)
    with pytest.raises(UpdateFinishedTrialError), theirs.fenced(0):
        set_attributes(storage, trial, {"map": 0.4})
    assert optuna.load_study(storage=str(engine.url), study_name="cells").trials[0].value == 0.3


def test_a_dead_process_of_this_host_is_followed_at_once(engine: sa.Engine):
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"],
        capture_output=True,
        text=True,
        check=True,
    )
    leave_behind(engine, pid=int(ended.stdout))
    with lease(engine, "uuid-1", "cells"):
        (row,) = held(engine)
        assert row.token != "dead"


def test_another_host_is_followed_when_its_lease_is_over(engine: sa.Engine):
    leave_behind(engine, host="elsewhere/boot/ns")
    with pytest.raises(StudyError, match="on elsewhere;"), lease(engine, "uuid-1", "cells"):
        pass
    with engine.begin() as connection:
        now = connection.execute(sa.select(sa.func.now())).scalar_one()
        now = now if isinstance(now, datetime) else datetime.fromisoformat(str(now))
        over = now - timedelta(seconds=LEASE_S + 1)
        connection.execute(sa.update(DRIVERS).values(renewed_at=over))
    with lease(engine, "uuid-1", "cells"):
        (row,) = held(engine)
        assert row.host == host_id()


def test_a_lease_is_renewed(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nas.study.lease.RENEW_S", 0.05)
    monkeypatch.setattr("nas.study.lease.LOOK_S", 0.05)
    with lease(engine, "uuid-1", "cells"):
        long_ago = datetime(2000, 1, 1)
        with engine.begin() as connection:
            connection.execute(sa.update(DRIVERS).values(renewed_at=long_ago))
        deadline = time.monotonic() + DEADLINE_S
        while held(engine)[0].renewed_at == long_ago and time.monotonic() < deadline:
            time.sleep(0.02)
        assert held(engine)[0].renewed_at > long_ago


def test_trials_belong_to_one_driver(engine: sa.Engine):
    first, second = (Lease(StudyLock(engine, 1), "cells", "uuid-1") for _ in range(2))
    assert first.take(7) is None
    assert (first.owns(7), second.owns(7)) == (True, False)
    with first.held():
        assert second.of_others() == {7}
        assert first.of_others() == set()
    assert second.of_others() == set()  # whose driver is gone belongs to nobody
    assert second.take(7) == first.token
    assert (first.owns(7), second.owns(7)) == (False, True)


def test_a_request_to_stop_is_an_interrupt(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nas.study.lease.LOOK_S", 0.05)
    asking = Lease(StudyLock(engine, 1), "cells", "uuid-1")
    assert asking.others() == []

    def wait() -> None:
        with lease(engine, "uuid-1", "cells"):
            assert len(asking.others()) == 1
            asking.ask_to_stop()
            time.sleep(30)

    with pytest.raises(KeyboardInterrupt):
        wait()
    assert asking.others() == []


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:secret",  # a lost @ makes a port of the password
        "postgresql:/me:secret@host/db",
        "postgresql//me:secret@host/db",
        "postgresql:///me:secret@host/db",  # a slash too many makes the name of a database of it
        "mysql:////me:secret@host/db",
        "postgresql://me:a@secret@host/db",  # and an @ in it a host
    ],
)
def test_a_mistyped_url_is_not_repeated(url: str):
    with pytest.raises(StudyError, match="storage must be a database URL") as refused:
        parse_url(url)
    assert "secret" not in str(refused.value)


def test_a_database_stays_the_same_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Threads open connections of their own, perhaps while Ray starts in the root folder."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    storage = open_storage("sqlite:///nas.db", create=True)
    optuna.create_study(storage=storage, study_name="cells")
    monkeypatch.chdir(elsewhere)
    storage.engine.dispose()  # the next statement opens a connection
    assert optuna.get_all_study_names(storage) == ["cells"]
    assert not [*elsewhere.iterdir()]
