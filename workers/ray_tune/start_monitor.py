"""Whether worker processes come at all: Ray starts one after the other, or waits, for ever."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from nas.errors import StudyError
from nas.search.search import Search
from workers.ray_tune.ray_internals import log_folder

START_S = 300  # torch is imported there, perhaps from a slow disk or beside other work


class StartMonitor:
    """Ends a search on this machine's own Ray whose first worker does not come; on a cluster, which
    may have other work, it says so once.

    Args:
        search: is told.
        joined: Ray is a cluster's.
    """

    def __init__(self, search: Search, *, joined: bool) -> None:
        self.search, self.joined = search, joined
        self._waited_from_s: float | None = None
        self._content = False

    def look(self, trials: Sequence[Any]) -> None:
        """Look at Tune's trials; may be called often.

        Raises:
            StudyError: no worker has come in five minutes.
        """
        if self._content or not trials:
            return
        if any(trial.status != "PENDING" for trial in trials):
            self._content = True
            return
        now_s = time.monotonic()
        self._waited_from_s = self._waited_from_s or now_s
        if now_s - self._waited_from_s < START_S:
            return
        if not self.joined:
            raise StudyError(
                f"no worker process of Ray has come in {START_S} s{_last_words()}. Nothing is "
                "lost: once that is mended, the same command goes on"
            )
        self._content = True
        self.search.warn(f"no worker process has come in {START_S} s: the cluster may be busy")


def _last_words() -> str:
    """What the last worker said that ended before it had begun: its raylet has heard it."""
    if not (folder := log_folder()):
        return ""
    try:
        lines = (folder / "raylet.err").read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return (f"; one said: {lines[-1]}" if lines else "") + f"; Ray's logs are in {str(folder)!r}"
