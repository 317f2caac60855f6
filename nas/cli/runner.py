"""What commands share: errors as one line, JSON for machines, numbers as people read them."""

from __future__ import annotations

import io
import json
import re
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any, NoReturn, TextIO

import typer
import yaml

from nas.cli import INTERRUPTED, STOPPED
from nas.errors import CandidateError
from nas.utils.process_death import free_memory_text
from nas.utils.shown_text import shown
from nas.utils.signals import interrupt_once
from nas.utils.url_secrets import masked
from search_spaces.errors import UserError, quoted, shortened
from search_spaces.yaml_text import parse_yaml

_QUERY = re.compile(r"(:/[^?]*)\?.*")  # of a URL, which may lack a slash


def new_app(**options: Any) -> typer.Typer:
    """An application without the decorations that make help slow and errors long."""
    return typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, **options
    )


class Stopped(Exception):
    """Ctrl-C in a command that has its own line to say of it."""


def run(app: typer.Typer, program: str) -> NoReturn:
    """Run a command: a user's mistake or what the system refuses is one line on stderr and exit
    code 2, a training that diverges or does not fit is one line and 1, Ctrl-C, however often, one
    line and 130.
    """
    interrupt_once()
    _hide_passwords()
    _print_what_can_be()
    try:
        code = app(standalone_mode=False, prog_name=program)
    except (Exception, KeyboardInterrupt) as error:
        if _is_of_interrupt(error):
            _exit_interrupted(str(error) if isinstance(error, Stopped) else STOPPED)
        _explain(program, error)
        raise
    if code == INTERRUPTED:  # as Typer makes it of `KeyboardInterrupt`
        _exit_interrupted(STOPPED)
    _exit(code if isinstance(code, int) else 0)


def _is_of_interrupt(error: BaseException) -> bool:
    """Whether Ctrl-C has led to an error, perhaps by way of what broke while all was ended."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, Stopped | KeyboardInterrupt):
        cause = cause.__context__
    return cause is not None


def _exit_interrupted(text: str) -> NoReturn:
    say(text, file=sys.stderr)
    _exit(INTERRUPTED)


def _exit(code: int) -> NoReturn:
    """Leave without a word about a Ctrl-C that comes now: all has been said."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def _explain(program: str, error: BaseException) -> None:
    """End with one line where an error is a user's, the system's or a training's; return where it
    is a fault of this program.
    """
    if isinstance(error, UserError):
        _fail(program, str(error))
    if isinstance(error, CandidateError):
        _fail(program, f"the training ended: {error}", code=1)
    if isinstance(error, OSError):  # a full disk, a folder that may not be written
        if error.strerror:
            named = f": {error.filename!r}" if error.filename else ""
            _fail(program, f"{error.strerror}{named}")
    elif _is_of_memory(error):
        free = free_memory_text()
        _fail(program, f"not enough memory for this{free and f': {free} are free'}")
    elif hasattr(error, "format_message"):  # Typer's usage errors, whose class it does not publish
        _fail(program, error.format_message())
    elif message := _database_message(error):
        _fail(program, f"the database: {message}")


def _is_of_memory(error: BaseException) -> bool:
    """Whether Python or one of PyTorch's allocators, whose errors have no class of their own on a
    CPU, has had no memory.
    """
    named = type(error).__name__ == "OutOfMemoryError"
    return isinstance(error, MemoryError) or named or "can't allocate memory" in str(error)


def _database_message(error: BaseException) -> str | None:
    """What a database said that went away, was damaged, or refused something; else None."""
    below: BaseException | None = error
    while below and not type(below).__module__.startswith("sqlalchemy."):
        below = below.__cause__
    if not below:
        return None
    from nas.study.storage import driver_message

    return driver_message(below)


def _print_what_can_be() -> None:
    """A terminal of ASCII alone shows names of classes with question marks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _hide_passwords() -> None:
    """`ps` shows the arguments of a process, and Ray keeps its driver's: from now on without a
    database's password.
    """
    words = [_QUERY.sub(r"\1?***", masked(word)) for word in sys.orig_argv]
    if words != sys.orig_argv:
        from setproctitle import setproctitle

        setproctitle(" ".join(words))


def _fail(program: str, message: str, code: int = 2) -> NoReturn:
    """Whatever a message repeats of others, no secret of a URL is shown, and nothing long."""
    line = shortened(" ".join(masked(message).split()))
    say(f"{program}: {line}", file=sys.stderr)
    _exit(code)


def say(*parts: str, file: TextIO | None = None, flush: bool = False) -> None:
    """Print, as `print` does, what may hold text of others."""
    print(*map(shown, parts), file=file, flush=flush)


def print_json(content: Any) -> None:
    """On stdout, one document."""
    print(json.dumps(content, indent=2))


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """`--set key.path=value`, the value as YAML: numbers, true, lists.

    Raises:
        UserError: no equals sign, or a value that is not YAML.
    """
    parsed = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise UserError(
                f"--set takes key.path=value, for example recipe.lr=0.001; got {quoted(setting)}"
            )
        try:
            parsed[key.strip()] = parse_yaml(value)
        except yaml.YAMLError:
            raise UserError(f"--set {key}: the value must be YAML; got {quoted(value)}") from None
    return parsed


def given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that were used."""
    return {key: value for key, value in flags.items() if value is not None}
