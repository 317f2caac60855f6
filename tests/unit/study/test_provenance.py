"""Where results come from: the commit of our own checkout, and of no other repository."""

from __future__ import annotations

import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from helpers.untrained import FACTS, spec

from nas.study.lock import lock_of
from nas.study.provenance import git_commit, match_or_describe
from nas.study.storage import open_storage


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One that tracks a package, and has another one in an environment inside."""
    git(tmp_path, "init", "-q")
    for package in ("src/nas/study", ".venv/lib/nas/study"):
        (tmp_path / package).mkdir(parents=True)
        (tmp_path / package / "provenance.py").touch()
    (tmp_path / ".gitignore").write_text(".venv\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_the_commit_of_a_checkout(repository: Path):
    module = repository / "src/nas/study/provenance.py"
    assert git_commit(module) == git(repository, "rev-parse", "HEAD")


@pytest.mark.parametrize("ignored", [True, False])
def test_a_package_inside_somebody_elses_repository_has_no_commit(repository: Path, ignored: bool):
    if not ignored:
        (repository / ".gitignore").unlink()
    module = repository / ".venv/lib/nas/study/provenance.py"
    assert git(module.parent, "rev-parse", "HEAD")  # which git would give for it
    assert git_commit(module) is None


def test_a_package_in_no_repository_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "provenance.py").touch()
    assert git_commit(tmp_path / "provenance.py") is None


def test_of_drivers_that_make_one_study_at_once_one_describes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Forty times; that git takes its time lets the others come."""
    monkeypatch.setattr("nas.study.provenance.git_commit", lambda: time.sleep(0.02))
    request, facts = spec(tmp_path), FACTS

    def come(name: str, start: threading.Barrier) -> str:
        storage = open_storage(request.storage, create=True)
        start.wait()
        study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
        with lock_of(storage, name).exclusive():
            match_or_describe(study, False, request, facts, 2**30)
        return study.user_attrs["nas_uuid"]

    open_storage(request.storage, create=True)
    with ThreadPoolExecutor(3) as pool:
        for number in range(40):
            start = threading.Barrier(3)
            comers = [pool.submit(come, f"s{number}", start) for _ in range(3)]
            assert len({comer.result() for comer in comers}) == 1
