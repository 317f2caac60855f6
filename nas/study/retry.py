"""A database that is away for a while, and an end that comes in the middle of a call to it: Ctrl-C,
or SIGTERM.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import InterfaceError, OperationalError

from nas.errors import StudyError
from nas.study.storage import driver_message
from nas.utils.signals import defer_signals

DAMAGED = ("malformed", "not a database", "database corruption")  # as SQLite says it
AWAY = (StorageInternalError, OperationalError, InterfaceError)
PAUSES_S = (
    1,
    2,
    4,
    8,
    15,
    30,
    30,
    30,
)  # two minutes, then the search ends; the same command goes on


class ReportsOutages(Protocol):
    """An object whose methods are repeated while the database is away."""

    def on_away(self, reason: str, pause_s: float) -> None:
        """Hear, before each pause of `pause_s` seconds, why the database does not answer."""


Self = TypeVar("Self", bound=ReportsOutages)
P = ParamSpec("P")
R = TypeVar("R")


def retry_while_unreachable(
    method: Callable[Concatenate[Self, P], R],
) -> Callable[Concatenate[Self, P], R]:
    """Decorate a method so that it is repeated while the database is away, and not interrupted by
    Ctrl-C or SIGTERM in the middle of a call to it.

    Args:
        method: must bear being repeated after it has been done in part.

    Raises:
        StudyError: the database has been away for two minutes, or its file is damaged.
    """

    @wraps(method)
    def repeated(self: Self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        for pause_s in PAUSES_S:
            try:
                with defer_signals():
                    return method(self, *args, **kwargs)
            except AWAY as error:
                _refuse_damaged(error)
                self.on_away(driver_message(error), pause_s)
                time.sleep(pause_s)
        try:
            with defer_signals():
                return method(self, *args, **kwargs)
        except AWAY as error:
            raise StudyError(
                f"the database has been away for {sum(PAUSES_S)} s ({driver_message(error)}); "
                "the same command goes on where this one stopped"
            ) from error

    return repeated


def _refuse_damaged(error: BaseException) -> None:
    """No waiting mends a file."""
    said = driver_message(error)
    if any(sign in said for sign in DAMAGED):
        raise StudyError(
            f"the database is damaged ({said}): restore a copy of it, or begin in a new file"
        ) from error
