"""Where results come from: the commit of our own checkout, and of no other repository."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from nas.study.provenance import git_commit


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
