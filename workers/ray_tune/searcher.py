"""Ray Tune asks here what to run next; the study answers."""

from __future__ import annotations

import json
import time
from typing import Any

from ray.tune.search import Searcher

from nas.search.search import Search
from nas.search.trial_queue import TrialAssignment
from workers.ray_tune.nodes import NodeMonitor
from workers.trial_config import TrialConfigBuilder

FINISHED: Any = Searcher.FINISHED  # a string, in spite of the signature
# a candidate that trains for less is chosen while those before it train: its worker would wait for
# the database
SHORT_S = 20
START_S = 0.05


class StudySearcher(Searcher):
    """A searcher without a state of its own but for which Ray trial is which trial of the study.

    Args:
        search: decides.
        configs: makes the configuration of a Ray trial, one JSON string.
        concurrent: how many trials run at once.

    Attributes:
        numbers: of the trials in the study, by the ids of Ray's trials.
    """

    def __init__(self, search: Search, configs: TrialConfigBuilder, concurrent: int) -> None:
        super().__init__()
        self.search, self.configs, self.concurrent = search, configs, concurrent
        self.numbers: dict[str, int] = {}
        self._watch = NodeMonitor()
        self._chosen: TrialAssignment | None = None
        self._short, self._handed_s = False, 0.0

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Answer Tune with the configuration of its next trial, None where there is nothing to
        start now, or `FINISHED`.
        """
        self._watch.look()
        chosen = (
            self._chosen if self._chosen and self.search.is_running(self._chosen.number) else None
        )
        free = self.search.running - bool(chosen) < self.concurrent
        if chosen is None and (free or self._short) and not self._starting:
            chosen = self.search.ask()
            if chosen is None and free:
                return FINISHED if self.search.finished else None
        self._chosen = None if free else chosen
        if chosen is None or not free:
            return None
        self._handed_s = time.monotonic()
        self.numbers[trial_id] = chosen.number
        return {"trial": json.dumps(self.configs.build(chosen))}

    @property
    def _starting(self) -> bool:
        """Tune has not yet started what it was just given, and would not before it has the
        answer.
        """
        return (
            self._short and self.search.running > 0 and time.monotonic() - self._handed_s < START_S
        )

    def trained_for(self, elapsed_s: float) -> None:
        """Hear how many seconds a candidate trained that came to its end: short ones are chosen
        ahead.
        """
        self._short = elapsed_s < SHORT_S

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Hear the end of a Ray trial, of which the scheduler has told the search."""
        self.numbers.pop(trial_id, None)

    def __getstate__(self) -> dict[str, Any]:
        """Give Tune nothing to store: the study is the state."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Store nothing: the study is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: the study is the state."""
