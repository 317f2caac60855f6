"""Commands to be pasted, against a real shell."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from nas.cli.runner import parse_settings
from nas.study.storage import study_line
from nas.utils.shell import command_line, setting

ROOT = Path(__file__).parents[3]
HOSTILE = [
    "a;rm -rf b",
    "$(touch x)",
    "`id`",
    "it's",
    'say "x"',
    "a b",
    "*",
    "-x",
    "a\nb",
    "!!",
    "#",
]


def words_in_a_shell(line: str) -> list[str]:
    """What a program gets of a line."""
    program = "import json, sys; print(json.dumps(sys.argv[1:]))"
    script = f"words() {{ python3 -c '{program}' \"$@\"; }}\nwords {line}"
    shell = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return list(json.loads(shell.stdout))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_shell_reads_the_words_that_were_meant(name: str):
    line = command_line("nas", "train", name, Path("x y"), comment="a comment")
    assert words_in_a_shell(line) == ["nas", "train", name, "x y"]
    line = study_line("nas", "resume", study=name, storage="sqlite:///a b/nas.db")
    assert words_in_a_shell(line) == [
        *("nas", "resume", "--study", name, "--storage", "sqlite:///a b/nas.db")
    ]


@pytest.mark.parametrize("text", [*HOSTILE, "a: b", "1", "null", "[x", "weights.pt", "2024-01-01"])
def test_a_setting_is_the_text_that_was_meant(text: str):
    assert parse_settings([setting("recipe.weights", text)]) == {"recipe.weights": text}


def test_nothing_quotes_words_beside_it():
    used = re.compile(r"^import shlex|^from shlex", re.MULTILINE)
    files = [
        path for part in ("nas", "workers", "dashboards") for path in (ROOT / part).rglob("*.py")
    ]
    assert [path.name for path in files if used.search(path.read_text())] == ["shell.py"]
