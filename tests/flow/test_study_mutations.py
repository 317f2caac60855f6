"""Studies with changed rows, as whoever has the URL of a database can write them: what reads them
works, or refuses them in one line; a page says that a study cannot be shown.
"""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import optuna
import pytest
from helpers.bounds import command_end, refused_in_one_line
from helpers.browsing import Browser
from helpers.mutations import HOSTILE_VALUES, VALUES, changed, damaged, number_of_times
from helpers.studies import frozen, trained_search
from optuna.trial import TrialState, create_trial

from dashboards.pages import pages_app
from nas.api.study import Study
from nas.cli.control import logs, resume
from nas.cli.export import export
from nas.cli.listing import list_studies, status
from nas.cli.report import report
from nas.errors import UserError
from nas.study.storage import open_storage

NAMES = ["layout", "map", "role", "recipe", "nas_spec", "epochs", "step", "x", "name", "choices"]
PIECES = [b"{", b"}", b"[", b"]", b'"', b":", b",", b"NaN", b"\\u0000", b"\\ud800", b"9" * 400]
CELLS: list[Any] = [
    *(
        None,
        0,
        1,
        -1,
        7.5,
        1e308,
        2**63 - 1,
        -(2**63),
        float("inf"),
        "",
        "x",
        "nan",
        "NAN",
        b"\xff",
    ),
    *("COMPLETE", "RUNNING", "WAITING", "FAIL", "PRUNED", "MINIMIZE", "MAXIMIZE", "INF_POS"),
    *("digits", "other", "2024-02-30 00:00:00", "9999-12-31 23:59:59.999999", "{}", "[]", "null"),
    *("a\rb\nc\x1b[31m", "é" * 300, "[" * 3000, "x" * 100_000),
]
TABLES = ("studies", "study_directions", "study_user_attributes", "study_system_attributes")
TABLES += ("trials", "trial_user_attributes", "trial_system_attributes", "trial_params")
TABLES += ("trial_values", "trial_intermediate_values", "version_info", "nas_owners")
WEIGHTS = (1, 1, 4, 1, 3, 6, 2, 3, 2, 1, 0.3, 0.3)
PATHS = ("/", "/studies/1", "/studies/2", "/studies/1/trials/0", "/studies/1/trials/3")
SHOWN = (200, 404, 422)


@pytest.fixture(scope="module")
def database(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trials that were trained, four of other states and roles, and a study of another
    program.
    """
    folder = tmp_path_factory.mktemp("study")
    search = trained_search(folder, digits, **{"recipe.epochs": 1})
    study = optuna.load_study(study_name="digits", storage=search.storage)
    states = (TrialState.FAIL, TrialState.PRUNED, TrialState.RUNNING, TrialState.COMPLETE)
    for number, state in enumerate(states):
        known = frozen(number, state, role="replicate" if number == 3 else "candidate")
        study.add_trial(
            create_trial(
                state=state,
                value=known.value,
                user_attrs=known.user_attrs,
                system_attrs=known.system_attrs,
                intermediate_values=known.intermediate_values,
            )
        )
    optuna.create_study(study_name="other", storage=search.storage).ask()
    search.storage.remove_session()
    search.storage.engine.dispose()
    return folder / "nas.db"


def change_row(connection: sqlite3.Connection, rng: random.Random) -> None:
    """One cell, one row less, or one row twice."""
    table = rng.choices(TABLES, WEIGHTS)[0]
    rows = [number for (number,) in connection.execute(f"SELECT rowid FROM {table}")]
    if not rows:
        return
    row, columns = (
        rng.choice(rows),
        [c[1] for c in connection.execute(f"PRAGMA table_info({table})")],
    )
    what = rng.randrange(10)
    if what == 0:
        connection.execute(f"DELETE FROM {table} WHERE rowid = ?", (row,))
    elif what == 1:
        names = ", ".join(columns[1:])
        connection.execute(
            f"INSERT INTO {table} ({names}) SELECT {names} FROM {table} WHERE rowid = ?", (row,)
        )
    else:
        column = rng.choice([columns[-1], *columns])
        select = f"SELECT {column} FROM {table} WHERE rowid = ?"
        (value,) = connection.execute(select, (row,)).fetchone()
        connection.execute(
            f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (another(value, rng), row)
        )


def another(value: Any, rng: random.Random) -> Any:
    """In place of a cell: JSON is mostly changed within."""
    try:
        content = json.loads(value)
    except (TypeError, ValueError, RecursionError):
        return rng.choice(CELLS)
    what = rng.randrange(8)
    if what == 0:
        return rng.choice(CELLS)
    if what == 1:
        return damaged(value.encode(), rng, PIECES).decode(errors="replace")
    values = [*VALUES, *HOSTILE_VALUES]
    nested = changed([content], rng, NAMES, values) if what > 2 else [rng.choice(values)]
    return json.dumps(nested[0] if nested else None)


def show(url: str, path: str) -> None:
    """A page; what stands in the database must not be a fault of the server."""
    storage = open_storage(url, create=False, read_only=True)
    app = pages_app(storage, "")
    app.catchall = False
    try:
        assert Browser(app).get(path).status in SHOWN
    except UserError as error:
        raise AssertionError(path) from error
    finally:
        storage.engine.dispose()


def look(url: str) -> None:
    """As a notebook shows it."""
    study = Study(url, "digits")
    assert repr(study)
    assert study._repr_html_()
    assert [row.to_dict() for row in study.trials()]


def readers(url: str, out: Path) -> list[Callable[[], object]]:
    return [
        lambda: list_studies(url),
        lambda: list_studies(url, True),
        lambda: status("digits", url),
        lambda: status("digits", url, True),
        lambda: logs("digits", url),
        lambda: look(url),
        lambda: resume("digits", url),
        lambda: report(out / "report.html", "digits", url),
        lambda: export(out / "bundle", "digits", url, no_onnx=True),
        *[lambda path=path: show(url, path) for path in PATHS],
    ]


@pytest.fixture
def one_migration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna runs all its migration scripts' files each time to find out which is the last: half
    of the time of a case.
    """
    last = optuna.storages.RDBStorage("sqlite://").get_head_version()
    manager = "optuna.storages._rdb.storage._VersionManager"
    monkeypatch.setattr(f"{manager}.get_head_version", lambda _: last)


@number_of_times(60, 10_000)
@pytest.mark.usefixtures("one_migration")
def test_any_study_is_read_or_refused_in_a_line(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
):
    monkeypatch.setattr("nas.cli.dispatch.dispatch", lambda *_, **__: None)
    refused, before = 0, database.read_bytes()
    (tmp_path / "first").mkdir()
    for act in readers(f"sqlite:///{database}", tmp_path / "first"):
        assert not refused_in_one_line(command_end(act, tmp_path, database.parent))
    for number in range(times):
        rng, copy, out = random.Random(number), tmp_path / f"{number}.db", tmp_path / "out"
        shutil.copy(database, copy)
        out.mkdir()
        with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
            for _ in range(rng.choice([1, 1, 2, 5])):
                with suppress(sqlite3.IntegrityError):  # what the tables themselves refuse
                    change_row(connection, rng)
        try:
            act = rng.choice(readers(f"sqlite:///{copy}", out))
            refused += refused_in_one_line(command_end(act, tmp_path))
        except BaseException as error:
            raise AssertionError(f"number {number}, see {copy}") from error
        shutil.rmtree(out)
        for left in tmp_path.glob("*.db*"):
            left.unlink()
    assert 0 < refused < times
    assert database.read_bytes() == before
