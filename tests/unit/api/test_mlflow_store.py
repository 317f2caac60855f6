"""Where MLflow is to keep runs: what is refused, and that before anything is trained."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import run_here
from helpers.untrained import Driver, spec

from nas.api.mlflow_store import SETTINGS, check_store, mlflow_settings
from nas.api.requests import with_absolute_paths
from nas.errors import SpecError, StudyError
from workers.ray_tune.jobs import check_for_cluster

PIP = "pip install 'scratch-nas[mlflow]'"


@pytest.fixture
def _not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(name: str) -> Any:
        return None if name == "mlflow" else find_spec(name)

    monkeypatch.setattr("nas.errors.find_spec", found)


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.errors.find_spec", lambda _: True)


@pytest.mark.usefixtures("_not_installed")
@pytest.mark.parametrize("words", [["--local"], ["--local", "--detach"]], ids=" ".join)
def test_a_search_without_the_extra_ends_before_it_begins(
    tmp_path: Path, digits: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    done = run_here("nas-submit", "--data", digits, "--mlflow", "mlruns", *words)
    assert done.code == 2
    assert done.err == f"nas-submit: this needs the package mlflow: {PIP}\n"
    assert not {"nas.db", "mlruns"} & {path.name for path in tmp_path.iterdir()}


@pytest.mark.usefixtures("_not_installed")
def test_a_continued_search_without_the_extra_stays_as_it_is(tmp_path: Path, digits: Path):
    driver = Driver(tmp_path, **{"data.root": str(digits)})
    driver.train()
    storage = f"sqlite:///{tmp_path}/nas.db"
    words = ("resume", "--local", "--storage", storage, "--mlflow", tmp_path / "mlruns")
    done = run_here("nas", *words)
    assert done.code == 2
    assert done.err == f"nas: this needs the package mlflow: {PIP}\n"
    assert len(driver.study.table.trials) == 1


@pytest.mark.parametrize("command", ["submit", "resume"])
def test_a_password_is_refused_and_not_repeated(tmp_path: Path, digits: Path, command: str):
    storage = ("--storage", f"sqlite:///{tmp_path}/nas.db")
    words = ["nas-submit", "--data", digits] if command == "submit" else ["nas", "resume"]
    if command == "resume":
        Driver(tmp_path)
    done = run_here(*words, *storage, "--mlflow", "http://me:SECRETPW@host:5000")
    assert done.code == 2
    assert "must hold no password or token" in done.err
    assert "NAS_SECRET_HOST" in done.err
    assert "SECRETPW" not in done.err


@pytest.mark.usefixtures("_installed")
def test_the_variable_of_the_host_must_be_there(monkeypatch: pytest.MonkeyPatch):
    where = "https://me:${NAS_SECRET_HOST}@host"
    with pytest.raises(SpecError, match="NAS_SECRET_HOST, which is not set"):
        check_store(where)
    monkeypatch.setenv("NAS_SECRET_HOST", "geheim")
    check_store(where)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("file:///mlruns", "run.mlflow: must be a folder, or the URL of a tracking server"),
        ("postgresql://host/mlflow", "got one with postgresql://"),
        ("", "run.mlflow"),
    ],
)
def test_other_stores_are_refused(tmp_path: Path, where: str, said: str):
    with pytest.raises(SpecError, match=said):
        spec(tmp_path, **{"run.mlflow": where})


@pytest.mark.usefixtures("_installed")
def test_files_of_older_releases_are_left_alone(tmp_path: Path):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "meta.yaml").touch()
    line = f"mlflow migrate-filestore --source {tmp_path} --target sqlite:///{tmp_path}/mlflow.db"
    with pytest.raises(SpecError, match=line):
        check_store(str(tmp_path))
    (tmp_path / "mlflow.db").touch()
    check_store(str(tmp_path))


@pytest.mark.usefixtures("_installed")
def test_a_folder_that_cannot_be_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match=r"run.mlflow '\S+/file/mlruns' cannot be written"):
        check_store(str(tmp_path / "file" / "mlruns"))


def test_a_folder_is_found_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    asked = spec(tmp_path, **{"run.mlflow": "mlruns"})
    assert with_absolute_paths(asked).run.mlflow == str(tmp_path / "mlruns")
    with pytest.raises(SpecError, match="run.mlflow must be a URL or an absolute path"):
        check_for_cluster(
            spec(tmp_path, **{"data.root": "/data", "run.output": "/runs", "run.mlflow": "mlruns"})
        )


def test_settings_are_those_of_a_block(monkeypatch: pytest.MonkeyPatch):
    mine = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "60", "MLFLOW_TRACKING_USERNAME": "somebody"}
    for name, value in mine.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NAS_SECRET_HOST", "a%2Fb")
    before = dict(os.environ)
    with mlflow_settings("https://me:${NAS_SECRET_HOST}@host"):
        inside = dict(os.environ)
    assert dict(os.environ) == before
    assert inside["MLFLOW_TRACKING_USERNAME"] == "me"
    assert inside["MLFLOW_TRACKING_PASSWORD"] == "a/b"
    assert inside["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "60"
    assert inside["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert inside.keys() > SETTINGS.keys()
    with mlflow_settings("mlruns"):
        assert "MLFLOW_TRACKING_PASSWORD" not in os.environ
