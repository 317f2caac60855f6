"""What commands share: errors as one line, JSON for machines, numbers as people read them."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Mapping
from typing import Any, NoReturn, TextIO

import typer
import yaml

from nas.errors import CandidateError
from nas.utils.shown_text import shown
from search_spaces.errors import UserError
from search_spaces.yaml_text import parse_yaml

INTERRUPTED = 130  # as shells say it
_PASSWORD, _QUERY = re.compile(r"(://[^:/]*):[^@]*@"), re.compile(r"(://[^?]*)\?.*")  # of a URL


def new_app(**options: Any) -> typer.Typer:
    """An application without the decorations that make help slow and errors long."""
    return typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, **options
    )


def run(app: typer.Typer, program: str) -> NoReturn:
    """Run a command: a user's mistake or what the system refuses is one line on stderr and exit
    code 2, a training that diverges or does not fit is one line and 1, an interrupt 130.
    """
    _hide_passwords()
    _print_what_can_be()
    try:
        code = app(standalone_mode=False, prog_name=program)
    except UserError as error:
        _fail(program, str(error))
    except CandidateError as error:
        _fail(program, f"the training ended: {error}", code=1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except OSError as error:  # a full disk, a folder that may not be written
        if not error.strerror:
            raise
        _fail(program, f"{error.strerror}{f': {error.filename!r}' if error.filename else ''}")
    except Exception as error:
        # Typer's own usage errors, whose class it does not publish.
        if hasattr(error, "format_message"):
            _fail(program, error.format_message())
        if message := _database_message(error):
            _fail(program, f"the database: {message}")
        raise
    sys.exit(code if isinstance(code, int) else 0)


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
    words = [_QUERY.sub(r"\1?***", _PASSWORD.sub(r"\1:***@", word)) for word in sys.orig_argv]
    if words != sys.orig_argv:
        from setproctitle import setproctitle

        setproctitle(" ".join(words))


def _fail(program: str, message: str, code: int = 2) -> NoReturn:
    say(f"{program}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


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
                f"--set takes key.path=value, for example recipe.lr=0.001; got {setting!r}"
            )
        try:
            parsed[key.strip()] = parse_yaml(value)
        except yaml.YAMLError:
            raise UserError(f"--set {key}: the value must be YAML; got {value!r}") from None
    return parsed


def given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that were used."""
    return {key: value for key, value in flags.items() if value is not None}
