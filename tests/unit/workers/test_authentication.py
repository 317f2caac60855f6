"""Ray's token: shown where there is one, readable by its owner alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from workers.ray_tune.authentication import (
    MODE,
    TOKEN,
    TOKEN_FILE,
    has_token,
    keep_token_private,
    use_token,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (MODE, TOKEN, TOKEN_FILE):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    return tmp_path


def test_without_a_token_nothing_is_said():
    use_token()
    assert not has_token()
    assert MODE not in os.environ


@pytest.mark.parametrize("where", [TOKEN, TOKEN_FILE, "home"])
def test_a_token_is_shown_where_ray_looks_for_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, where: str
):
    (home / ".ray").mkdir()
    path = home / ".ray" / ("auth_token" if where == "home" else "other")
    path.write_text("ab" * 32)
    if where != "home":
        monkeypatch.setenv(where, "ab" * 32 if where == TOKEN else str(path))
    use_token()
    assert os.environ[MODE] == "token"


def test_what_the_user_says_counts(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(TOKEN, "ab" * 32)
    monkeypatch.setenv(MODE, "disabled")
    use_token()
    keep_token_private()
    assert os.environ[MODE] == "disabled"
    assert not (home / ".ray").exists()


def test_a_new_token_and_an_open_one_are_for_their_owner_alone(home: Path):
    path = home / ".ray" / "auth_token"
    keep_token_private()
    first = path.read_text()
    assert len(bytes.fromhex(first)) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    keep_token_private()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == first


def test_without_a_home_nothing_fails(monkeypatch: pytest.MonkeyPatch):
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    keep_token_private()
    use_token()
    assert MODE not in os.environ


def test_a_process_that_knows_ray_already_shows_the_token(tmp_path: Path):
    """A notebook joins a cluster, then searches on its own machine."""
    token = tmp_path / "token"
    token.write_text("ab" * 32)
    script = (
        "import os, ray\n"
        "from ray._raylet import AuthenticationMode, get_authentication_mode\n"
        "from workers.ray_tune.authentication import use_token\n"
        "before = get_authentication_mode() == AuthenticationMode.TOKEN\n"
        f"os.environ[{TOKEN_FILE!r}] = {str(token)!r}\n"
        "use_token()\n"
        "print(before, get_authentication_mode() == AuthenticationMode.TOKEN)\n"
    )
    known = {name: value for name, value in os.environ.items() if "RAY_AUTH" not in name}
    said = subprocess.run(
        [sys.executable, "-c", script],
        env={**known, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == ["False", "True"]
