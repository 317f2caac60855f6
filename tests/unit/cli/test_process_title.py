"""What `ps` shows of a command: no password, wherever it stands in a URL."""

from __future__ import annotations

import pytest

from nas.cli import runner


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me@tenant:secret@host/db", "postgresql://me@tenant:***@host/db"),
        ("--storage=postgresql://me:se:cr/et@host/db", "--storage=postgresql://me:***@host/db"),
        ("postgresql://host:5432/db", "postgresql://host:5432/db"),
        ("postgresql:/me:secret@host/db?a=b", "postgresql:/me:***@host/db?***"),
        ("postgresql//me:secret@host/db", "postgresql//me:***@host/db"),
        ("postgresql:///me:secret@host/db", "postgresql:///me:***@host/db"),
        ("http://me:secret@host/x?sig=secret", "http://me:***@host/x?***"),
    ],
)
def test_processes_show_no_password(monkeypatch: pytest.MonkeyPatch, word: str, shown: str):
    titles: list[str] = []
    monkeypatch.setattr(runner.sys, "orig_argv", ["nas-submit", word])
    monkeypatch.setattr("setproctitle.setproctitle", titles.append)
    runner._hide_passwords()
    assert titles == ([] if word == shown else [f"nas-submit {shown}"])
