"""The wall time that the commands of one study have taken together, kept in the study."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import optuna

from nas.study.retry import AWAY

NOTED_S = 5.0  # between two notes: what a command that is killed may take without its being known
COMMANDS = "nas_commands"


def spent_s(commands: Iterable[tuple[float, float]]) -> float:
    """Add up the time in which any command ran, seconds.

    Args:
        commands: when each began and was last seen, seconds since 1970.
    """
    total_s, latest = 0.0, 0.0
    for begin, end in sorted(commands):
        total_s += max(0.0, end - max(begin, latest))
        latest = max(latest, end)
    return total_s


class TimeAccount:
    """Notes in a study that one of its commands runs.

    Args:
        study: the study.
        token: identifies the command.
        began_at: when it began, seconds since 1970.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        study: optuna.Study,
        token: str,
        began_at: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.study, self.token, self.began_at, self.clock = study, token, began_at, clock
        self._noted_at = 0.0

    def note(self, *, at_once: bool = False) -> None:
        """Write that the command runs, unless that has been written lately; what cannot be written
        now is written the next time.
        """
        now = self.clock()
        if not at_once and now - self._noted_at < NOTED_S:
            return
        with suppress(*AWAY):
            known = self.study.user_attrs.get(COMMANDS) or {}
            self.study.set_user_attr(COMMANDS, {**known, self.token: [self.began_at, now]})
            self._noted_at = now
