"""Data and checkpoints behind URLs: an S3 server on this machine, and fsspec's view of a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.commands import (
    BIN,
    DEADLINE_S,
    Background,
    run_here,
    run_program,
    wait_until,
)
from helpers.servers import free_port, web_server
from optuna.trial import TrialState

from nas.errors import DataError, MissingDependency, SpecError
from nas.study.leaderboard import load_study
from nas.study.storage import open_storage
from nas.utils.files import append_line, atomic_write
from nas.utils.paths import localize, to_path


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """Environment in which s3:// reaches a server with the bucket `nas`."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    port = free_port()
    server = subprocess.Popen(
        [BIN / "moto_server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    variables = {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    bucket = urllib.request.Request(f"http://127.0.0.1:{port}/nas", method="PUT")

    def answers() -> bool:
        try:
            urllib.request.urlopen(bucket).close()
        except OSError:
            return False
        return True

    wait_until(answers)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield {**os.environ, **variables}
    server.terminate()
    server.wait(timeout=DEADLINE_S)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # those of the S3 client
def test_a_search_behind_urls(s3: dict[str, str], tmp_path: Path, digits: Path):
    import s3fs

    store = s3fs.S3FileSystem()
    store.put(f"{digits}/", "nas/digits/", recursive=True)
    storage = f"sqlite:///{tmp_path}/nas.db"
    command = ["nas-submit", "--data", "s3://nas/digits", "--output", "s3://nas/runs"]
    command += ["--storage", storage, "--space", "tiny", "--detector", "fcos"]
    command += ["--image-size", "32", "--no-baselines", "--epochs", "3", "--trials", "3"]
    command += ["--sampler", "random", "--concurrent", "2", "--set", "run.keep_best=2"]
    with Background(tmp_path / "log", *command, env=s3) as search:
        search.wait_until(lambda: "epoch 2/3" in search.printed())
        search.process.kill()
        search.wait()
    done = run_program(*command, env=s3)
    assert done.code == 0, done.err
    trials = load_study(open_storage(storage, create=False), "digits").trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
    assert all(set(trial.intermediate_values) == {1, 2, 3} for trial in trials)
    store.invalidate_cache()
    files = [name.rpartition("/")[2] for name in store.find("nas/runs")]
    assert files.count("detector.safetensors") == 2  # of the best two
    assert "checkpoint.pt" not in files
    assert not any(name.endswith(".partial") for name in files)
    epochs = [
        line
        for name in store.find("nas/runs")
        if name.endswith("log.jsonl")
        for line in store.cat(name).splitlines()
    ]
    assert len(epochs) <= 3 * 3 + 2  # at most one epoch again for each of the two that ran
    export = ["--storage", storage, "--out", tmp_path / "best", "--no-onnx"]
    assert run_here("nas-export", *export, "--push-to", "s3://nas/best").code == 0
    assert (tmp_path / "best" / "backbone.safetensors").stat().st_size > 10_000
    store.invalidate_cache()
    copied = {name.rpartition("/")[2]: store.cat(name) for name in store.find("nas/best")}
    assert copied == {path.name: path.read_bytes() for path in (tmp_path / "best").iterdir()}


@pytest.mark.parametrize("kind", ["file", "memory", "path"])
def test_files_are_whole_or_not_there(tmp_path: Path, kind: str):
    root = to_path(
        {
            "file": f"file://{tmp_path}/x",
            "memory": f"memory://{tmp_path.name}",
            "path": f"{tmp_path}/x",
        }[kind]
    )
    root.mkdir(parents=True, exist_ok=True)
    target = root / "target"
    atomic_write(target, lambda file: file.write(b"one"))
    atomic_write(target, lambda file: file.write(b"two"))

    def breaks(file) -> None:
        file.write(b"half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        atomic_write(target, breaks)
    assert target.read_bytes() == b"two"
    assert [path.name for path in root.iterdir()] == ["target"]
    for line in ("a", "b"):
        append_line(root / "log", line)
    assert (root / "log").read_text() == "a\nb\n"


def test_a_copy_of_the_data_follows_its_origin(tmp_path: Path, digits: Path):
    url = f"file://{digits}"
    first = localize(url)
    assert sorted(path.name for path in first.rglob("*")) == sorted(
        path.name for path in digits.rglob("*")
    )
    assert first != digits
    origin = tmp_path / "data"
    origin.mkdir()
    (origin / "a").write_text("1")
    one = localize(f"file://{origin}")
    (origin / "a").write_text("22")
    assert localize(f"file://{origin}") == one  # one process, one copy
    localize.cache_clear()
    other = localize(f"file://{origin}")
    assert (one / "a").read_text() == "1"
    assert (other / "a").read_text() == "22"


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("../../../../out.txt", "lists a file that is not in it, '.*/out.txt'"),
        ("a/../../../../../out.txt", "lists a file that is not in it, '.*/out.txt'"),
    ],
)
def test_a_server_that_lists_what_it_likes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str, words: str
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    page = f'<a href="{link}">x</a>'.encode()
    with (
        web_server(lambda path: page if path.rstrip("/") == "/d" else None) as server,
        pytest.raises(DataError, match=words),
    ):
        localize(f"{server}/d")
    assert not [*tmp_path.rglob("out.txt")]


def test_a_zip_file_of_a_web_server(tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    content = Path(shutil.make_archive(str(tmp_path / "d"), "zip", digits)).read_bytes()
    with web_server(lambda path: content if path == "/d.zip" else None) as server:
        copy = localize(f"{server}/d.zip")
    assert {path.name for path in copy.rglob("*")} == {path.name for path in digits.rglob("*")}


def test_a_server_that_refuses_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with web_server(lambda path: b"", user="me:right") as server:
        for path in ("d", "d.zip"):
            with pytest.raises(DataError, match="cannot be read: .") as refused:
                localize(f"{server}/{path}")
            assert "\n" not in str(refused.value)


def test_urls_that_lead_nowhere(tmp_path: Path):
    with pytest.raises(DataError, match="is empty or not there"):
        localize(f"file://{tmp_path}/gone")
    with pytest.raises((SpecError, MissingDependency)):
        to_path("nonsense://x/y")
