"""The command line, as tests use it: in this process, or as a program of its own."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest

BIN = Path(sys.executable).parent
PROGRAMS = {
    "nas": "nas.cli.main",
    "nas-submit": "nas.cli.submit",
    "nas-export": "nas.cli.export",
    "nas-dashboard": "nas.cli.dashboard",
}
DEADLINE_S = 3600  # of a wait: far more than a busy machine needs, less than a test may take


class Outcome(NamedTuple):
    """How a command ended: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The document that it printed; it must have succeeded."""
        assert self.code == 0, self.err
        return json.loads(self.out)


Run = Callable[..., Outcome]  # of the words of a command
Json = Callable[..., Any]  # of the words of a command to the document that it printed


def run_here(program: str, *words: object) -> Outcome:
    """Run a program's entry point in this process, which has imported torch already.

    What it prints is printed once more afterwards, so that pytest shows it where a test fails.
    """
    main = import_module(PROGRAMS[program]).main
    with patch.object(sys, "argv", [program, *map(str, words)]):
        ended = outcome_of(main)
    sys.stdout.write(ended.out)
    sys.stderr.write(ended.err)
    return ended


def outcome_of(main: Callable[[], object]) -> Outcome:
    """Call an entry point of a program."""
    out, err = io.StringIO(), io.StringIO()
    with (
        _interrupts_as_before(),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return Outcome(int(ended.value.code or 0), out.getvalue(), err.getvalue())


@contextmanager
def _interrupts_as_before() -> Iterator[None]:
    """A command decides for the rest of its process what Ctrl-C does: here the tests go on."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def run_program(program: str, *words: object, **options: Any) -> Outcome:
    """Run a program in an interpreter of its own; `options` are those of `subprocess.run`."""
    ended = subprocess.run(
        [BIN / program, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        **{"timeout": DEADLINE_S, **options},
    )
    return Outcome(ended.returncode, ended.stdout, ended.stderr)


def wait_until(condition: Callable[[], object], said: Callable[[], str] = str) -> None:
    """Return as soon as a condition holds; `said` is what a test that waits in vain fails with."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        began = time.monotonic()
        if condition():
            return
        assert time.monotonic() < deadline, said()
        looked_s = time.monotonic() - began
        time.sleep(max(0.05, 4 * looked_s))  # what is waited for needs the machine more


class Background:
    """A program that runs beside the test, in an interpreter and a process group of its own; what
    it prints is in the file `log`. Leaving the context kills what still runs of it.

    Args:
        log: a file, to which is appended.
        words: of the command; the first is the program, or a path to another one.
        options: those of `subprocess.Popen`.
    """

    def __init__(self, log: Path, *words: object, **options: Any) -> None:
        program, *arguments = map(str, words)
        path = BIN / program if program in PROGRAMS else program
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [path, *arguments], stdout=file, stderr=file, start_new_session=True, **options
            )

    def __enter__(self) -> Background:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    @property
    def pid(self) -> int:
        return self.process.pid

    def printed(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Return as soon as a condition holds; the program must live until then."""

        def holds() -> bool:
            ended = self.process.poll() is not None
            met = bool(condition())
            assert met or not ended, self.printed()
            return met

        wait_until(holds, self.printed)

    def wait(self) -> int:
        """Its exit code."""
        return self.process.wait(timeout=DEADLINE_S)
