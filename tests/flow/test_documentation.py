"""Every command of the README and of each page in `docs`, in its order: with fewer images and
epochs here, as written in the long test.

A page has a folder of its own, with the data sets `digits` and, where it speaks of it, `bccd`.
Blocks `sh` hold commands that must succeed, `console` commands with what they say on stderr,
`python` code, `yaml` a request or the file that its first line names, `text` parts of a message.
Blocks without a language are not run: they need a cluster or the network.
"""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from helpers.commands import BIN, DEADLINE_S, Run

from nas.config.spec import load_spec
from search_spaces.loading import load_space

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LARGEST_PICTURE = 200_000  # bytes
HOME = "/home/me"  # where the pages are written
ELSEWHERE = {"make search", "make test", "pip install '.[all]'"}  # run by the Makefile's users
# What makes a command short: words added to it.
SHORTER = {
    "nas make-data": "--train 16 --val 4 --size 48",
    "nas-submit": "--local --epochs 1 --trials 2 --image-size 32 --no-baselines",
    "nas resume": "--local",
    "nas proxy-check": "--local --epochs 1 --times 2 --layouts 2 --image-size 64",
    "nas train": "--epochs 1 --image-size 32 --no-onnx",
    "nas profile": "--images 1 --image-size 64",
    "nas-export": "--no-onnx",
}


class Block(NamedTuple):
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [Block(language, text) for language, text in found]


def commands(page: Path) -> list[str]:
    return [
        line for block in blocks(page) if block.language == "sh" for line in block.text.splitlines()
    ]


def messages(block: Block) -> list[tuple[str, str]]:
    """Commands of a console and what each says."""
    parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]
    return [
        (command, said.strip()) for command, _, said in (part.partition("\n") for part in parts)
    ]


def write_file(block: Block, folder: Path) -> None:
    """A request or a space, checked; under its name where it has one."""
    named = re.match(r"# (\w+\.yaml)", block.text)
    path = folder / (named[1] if named else "unnamed.yaml")
    path.write_text(block.text)
    if "stages:" in block.text:
        load_space(str(path))
    else:
        load_spec(path, {})


def in_turn() -> list[Any]:
    """All pages; the tutorial, whose commands take a minute in short too, in the long tests."""
    marks = {"tutorial": [pytest.mark.long]}
    return [pytest.param(page, id=page.stem, marks=marks.get(page.stem, [])) for page in PAGES]


@pytest.fixture(params=in_turn())
def page(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One page; its folder is the working folder."""
    monkeypatch.chdir(tmp_path)
    used = " ".join(commands(request.param))
    if "bccd" in used:
        (tmp_path / "bccd").symlink_to(request.getfixturevalue("bccd"))
    if "digits" in used and "nas make-data digits" not in used:
        (tmp_path / "digits").symlink_to(request.getfixturevalue("digits"))
    return request.param


@pytest.mark.filterwarnings("ignore")  # those of the programs
def test_every_command_runs(page: Path, tmp_path: Path, nas: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "wsgiref.simple_server.WSGIServer.serve_forever", lambda server: server.server_close()
    )
    monkeypatch.setattr("nas.search.forecast.forecast.MEASURED", 2)
    for block in blocks(page):
        if block.language == "sh":
            for command in set_apart(block.text.splitlines()):
                more = next(
                    (extra for start, extra in SHORTER.items() if command.startswith(start)), ""
                )
                code, _, said = nas(*subcommand(command.replace(" --detach", "")), *more.split())
                assert code == 0, (command, said)
        elif block.language == "console":
            for command, expected in messages(block):
                check_message(command, expected, tmp_path, nas)
        elif block.language == "python":
            subprocess.run(
                [sys.executable, "-c", block.text], check=True, cwd=tmp_path, capture_output=True
            )
        elif block.language == "yaml":
            write_file(block, tmp_path)


def set_apart(lines: list[str]) -> list[str]:
    """Without what others run, or what needs a package that is not here."""
    lacking = ["--mlflow"] if find_spec("mlflow") is None else []
    return [
        line
        for line in lines
        if line not in ELSEWHERE and not any(flag in line for flag in lacking)
    ]


def subcommand(command: str) -> list[str]:
    """The words after `nas`: `nas-submit` is its command `submit`."""
    program, *words = shlex.split(command)
    return words if program == "nas" else [program.removeprefix("nas-"), *words]


def check_message(command: str, expected: str, folder: Path, nas: Run) -> None:
    """An error in the very words; nothing expected: success."""
    if not command.startswith("nas"):
        subprocess.run(shlex.split(command), check=True, cwd=folder)
        return
    code, _, said = nas(*subcommand(command))
    assert code == (2 if expected else 0), (command, said)
    if expected:
        program = shlex.split(command)[0]
        shown = re.sub(
            r"^nas:", f"{program}:", said.strip().splitlines()[-1].replace(str(folder), HOME)
        )
        assert re.fullmatch(re.escape(expected).replace("SIZE", r"\d+\.\d+"), shown), (
            command,
            shown,
        )


def test_parts_of_messages_are_in_the_code():
    code = "".join(
        path.read_text() for folder in ("nas", "workers") for path in (ROOT / folder).rglob("*.py")
    )
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # one string in two lines
    parts = [
        part.strip()
        for page in PAGES
        for block in blocks(page)
        if block.language == "text"
        for part in block.text.split("…")
    ]
    assert len(parts) > 5
    assert [part for part in parts if part not in code] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        file, _, heading = target.partition("#")
        place = (page.parent / file) if file else page
        assert place.exists(), target
        if heading:
            anchors = [
                re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-")
                for line in headings(place)
            ]
            assert heading in anchors, target


def test_pictures_are_small():
    sizes = {path.name: path.stat().st_size for path in (ROOT / "docs" / "figures").iterdir()}
    assert {name: size for name, size in sizes.items() if size > LARGEST_PICTURE} == {}


def headings(page: Path) -> list[str]:
    return [line.lstrip("#") for line in page.read_text().splitlines() if line.startswith("#")]


def test_the_reference_is_that_of_the_code():
    written = runpy.run_path(str(ROOT / "docs" / "reference.py"))
    assert (ROOT / "docs" / "reference.md").read_text() == written["reference"](), (
        "run python docs/reference.py"
    )
    for section, model in written["SECTIONS"].items():
        assert set(written["described"](model)) == {
            field.alias or name for name, field in model.model_fields.items()
        }, section


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name
)
def test_shipped_requests_are_valid(path: Path):
    load_spec(path, {"data.root": "x"})


@pytest.mark.long
def test_every_command_runs_as_written(page: Path, tmp_path: Path):
    for block in blocks(page):
        if block.language == "yaml":
            write_file(block, tmp_path)
        elif block.language == "python":
            subprocess.run([sys.executable, "-c", block.text], check=True, cwd=tmp_path)
        elif block.language == "sh":
            for command in set_apart(block.text.splitlines()):
                run_as_written(command, tmp_path)


def run_as_written(command: str, folder: Path) -> None:
    words = shlex.split(command)
    call = [str(BIN / words[0]), *words[1:]]
    if words[0] == "nas-dashboard":
        server = subprocess.Popen(call, cwd=folder, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        assert "http://127.0.0.1:8080/" in server.stdout.readline()
        server.terminate()
        server.communicate()
        return
    done = subprocess.run(call, cwd=folder, check=True, stderr=subprocess.PIPE, text=True)
    if "--detach" in words:
        pid = int(re.search(r"Process (\d+)", done.stderr)[1])
        psutil.wait_procs(
            [psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=DEADLINE_S
        )
