"""Databases as they come: studies of other programs, tables of another Optuna, damaged files. Each
is one line.
"""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from helpers.commands import Run
from helpers.studies import KNOWN

from nas.study import storage as storages
from nas.study.storage import parse_url

COMMANDS = ("list", "status --study other", "report --study other --out r.html", "logs")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/shared.db"


@pytest.fixture
def other(url: str) -> optuna.Study:
    """A study of another program, whose values are to be small."""
    study = optuna.create_study(study_name="other", storage=url, direction="minimize")
    for value in (0.9, 0.4):
        study.add_trial(optuna.trial.create_trial(value=value))
    return study


def test_a_study_of_another_program_has_no_map(nas: Run, nas_json, other: object, url: str):
    (row,) = nas_json("list", "--storage", url)
    assert (row["study"], row["map"], row["complete"]) == ("other", None, 2)
    for command in ("status", "export --out b", "logs", "stop", "resume"):
        code, out, said = nas(*command.split(), "--study", "other", "--storage", url)
        assert (code, out) == (2, ""), command
        assert said.endswith("study 'other' is not a search\n"), said


@pytest.mark.parametrize("version", ["3.0.0", "9.9.9"])
def test_tables_of_another_optuna_are_named(nas: Run, other: object, url: str, version: str):
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num='v0.9.0.a'"))
        connection.execute(sa.text(f"UPDATE version_info SET library_version='{version}'"))
    engine.dispose()
    for command in COMMANDS:
        code, _, said = nas(*command.split(), "--storage", url)
        assert code == 2
        (line,) = said.splitlines()
        assert "is of another version of Optuna" in line
        assert version in line


def test_damaged_pages_are_one_line(nas: Run, other: object, url: str, tmp_path: Path):
    file = tmp_path / "shared.db"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("PRAGMA wal_checkpoint(TRUNCATE)"))
    engine.dispose()
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    file.write_bytes(content)
    for command in COMMANDS:
        code, _, said = nas(*command.split(), "--storage", url)
        assert code == 2
        (line,) = said.splitlines()
        assert "malformed" in line or "not a database" in line


def test_reading_logs_makes_nothing(nas: Run, other: optuna.Study, url: str):
    for name, value in KNOWN.items():
        other.set_user_attr(name, value)
    engine = sa.create_engine(url)
    before = set(sa.inspect(engine).get_table_names())
    for more in ([], ["--follow"]):
        assert nas("logs", "--storage", url, *more) == (0, "", "")
    assert set(sa.inspect(engine).get_table_names()) == before
    engine.dispose()


@pytest.mark.parametrize(
    ("text", "installed", "driver"),
    [
        ("mysql://u@h/d", {"pymysql"}, "mysql+pymysql"),
        ("mysql://u@h/d", {"pymysql", "MySQLdb"}, "mysql"),
        ("mysql://u@h/d", set(), "mysql"),
        ("postgres://u@h/d", {"psycopg"}, "postgresql+psycopg"),
        ("postgresql://u@h/d", {"psycopg", "psycopg2"}, "postgresql"),
        ("postgresql+psycopg://u@h/d", {"psycopg2"}, "postgresql+psycopg"),
        ("sqlite:///x.db", set(), "sqlite"),
    ],
)
def test_a_url_without_a_driver_gets_the_one_that_is_there(
    monkeypatch: pytest.MonkeyPatch, text: str, installed: set[str], driver: str
):
    monkeypatch.setattr(storages, "find_spec", lambda name: name in installed or None)
    assert parse_url(text).drivername == driver
