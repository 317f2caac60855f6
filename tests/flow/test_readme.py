"""Every command of the README, in its order: with fewer images and epochs here, as written in the long test."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nas.cli import dashboard, export, main, submit
from nas.spec import load_spec

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = {"nas": main.main, "nas-submit": submit.main, "nas-export": export.main, "nas-dashboard": dashboard.main}
# What makes a command short: words added to it.
SHORTER = {
    "nas make-data": "--train 16 --val 4 --size 48",
    "nas-submit": "--local --epochs 1 --trials 2 --image-size 32",
    "nas resume": "--local",
    "nas train": "--epochs 1 --image-size 32 --no-onnx",
    "nas profile": "--images 1 --image-size 64",
}
ELSEWHERE = {"make search", "make test", "pip install '.[all]'"}  # the Makefile's own tests


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    return [line for block in blocks for line in block.strip().splitlines()]


def requests() -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


def test_the_readme_has_commands():
    assert set(commands()) >= ELSEWHERE
    assert {shlex.split(command)[0] for command in commands()} == {"make", "pip", *PROGRAMS}


@pytest.mark.filterwarnings("ignore")  # those of the programs
def test_every_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("wsgiref.simple_server.WSGIServer.serve_forever", lambda server: server.server_close())
    for command in commands():
        if command in ELSEWHERE:
            continue
        words = shlex.split(command)
        more = next((extra for start, extra in SHORTER.items() if command.startswith(start)), "")
        monkeypatch.setattr(sys, "argv", [*words, *more.split()])
        with pytest.raises(SystemExit) as ended:
            PROGRAMS[words[0]]()
        assert not ended.value.code, (command, capsys.readouterr().err)
    assert (tmp_path / "best" / "backbone.py").is_file()
    assert (tmp_path / "trained" / "backbone.py").is_file()


@pytest.mark.parametrize("text", requests())
def test_example_requests_are_valid(text: str, tmp_path: Path):
    path = tmp_path / "request.yaml"
    path.write_text(text)
    spec = load_spec(path, {})
    assert spec.study == "cells"


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_requests_are_valid(path: Path):
    load_spec(path, {"data.root": "x"})


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_command_runs_as_written(tmp_path: Path):
    bin_ = Path(sys.executable).parent
    for command in commands():
        if command in ELSEWHERE:
            continue
        words = shlex.split(command)
        call = [str(bin_ / words[0]), *words[1:]]
        if words[0] == "nas-dashboard":
            server = subprocess.Popen(call, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
            assert "http://127.0.0.1:8080/" in server.stdout.readline()
            server.terminate()
            server.communicate()
        else:
            subprocess.run(call, cwd=tmp_path, check=True)
