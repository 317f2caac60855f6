"""What a refusal repeats of what it was given: the beginning of it, and no password."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.commands import Run, outcome_of, run_here

from nas.cli.runner import new_app, run
from search_spaces.errors import LONGEST, SpaceError, UserError, one_of, quoted

LONG = "x" * 100_000


@pytest.mark.parametrize(
    "words",
    [
        ("profile", "C1-" * 100_000),
        ("profile", f"C2-C2-C2-C2+{LONG}=1"),
        ("submit", "--data", "d", "--sampler", LONG),
        ("submit", "--data", "d", "--set", f"recipe.lr={LONG}"),
        ("submit", "--data", "d", "--set", f"recipe.lr=[{'1,' * 100_000}1]"),
        ("submit", "--data", "d", "--set", f"{LONG}=1"),
        ("submit", "--data", "d", "--set", LONG),
        ("submit", "--data", "d", "--budget", LONG),
        ("submit", "--data", "d", "--space", f"{LONG}.yaml"),
        ("train", f"{LONG}/", "--data", "d", "--out", "o"),
        ("check-data", LONG),
    ],
)
def test_a_long_value_is_not_repeated_whole(words: tuple[str, ...], nas: Run):
    code, out, said = nas(*words)
    assert (code, out) == (2, "")
    assert len(said.splitlines()) == 1
    assert len(said) < LONGEST + 200


def test_the_middle_is_left_out():
    assert quoted("a" * 150) == repr("a" * 150)
    assert len(quoted(LONG)) < 500
    assert len(quoted({"a": [{"b": [[[[LONG] * 50]]]}] * 50})) < 500
    said = one_of("key", LONG, ["a", "b"])
    assert said.startswith("key must be one of a, b; got 'xxx")
    assert len(said) < 500
    said = str(SpaceError("begin " + LONG + " end"))
    assert len(said) < LONGEST + 100
    assert (said[:6], said[-4:]) == ("begin ", " end")
    assert "97,010 characters more" in said
    assert str(UserError("a" * LONGEST)) == "a" * LONGEST


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"
        ),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate"),
    ],
)
def test_too_little_memory_is_a_line(error: Exception, monkeypatch: pytest.MonkeyPatch):
    def act() -> None:
        raise error

    app = new_app()
    app.command()(act)
    monkeypatch.setattr("sys.argv", ["nas"])
    code, out, said = outcome_of(lambda: run(app, "nas"))
    assert (code, out) == (2, "")
    assert re.fullmatch(r"nas: not enough memory for this: [\d.]+ of [\d.]+ GiB are free\n", said)


@pytest.mark.parametrize("url", ["https:/me:SECRETPW@h/x.zip", "https://me:SECRETPW@127.0.0.1:1/x"])
def test_passwords_are_not_repeated(tmp_path: Path, url: str):
    for command in ("check-data", "convert"):
        words = (command, url, *([tmp_path / "out"] if command == "convert" else []))
        code, _, said = run_here("nas", *words)
        assert code == 2
        assert "SECRETPW" not in said
        assert "me:***@" in said or "no URL" in said
