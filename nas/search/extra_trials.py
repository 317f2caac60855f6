"""What a search trains beside its candidates: published baselines, and its best candidates once
more, with other seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from optuna.trial import TrialState

from nas.config.spec import SearchSpec
from nas.study.leaderboard import TOP, ranked
from nas.study.roles import BASELINE, REPLICATE
from nas.study.trials import TrialTable
from search_spaces.layout import Layout


@dataclass(frozen=True)
class ExtraTrial:
    """A training that is no candidate; `replicate` 0 is the first of its layout."""

    layout: Layout
    role: str
    replicate: int


class ExtraTrials:
    """Which of these trainings are still missing.

    Args:
        spec: the request: `search.baselines` and `search.replicates`.
        table: the trials, as last read.
        baselines: their layouts, asked for when they are needed.
    """

    def __init__(
        self, spec: SearchSpec, table: TrialTable, baselines: Callable[[], Sequence[Layout]]
    ) -> None:
        self.spec, self.table, self.baselines = spec, table, baselines

    def next(self) -> ExtraTrial | None:
        """The first that is missing. Which candidates are the best is known when none is in
        training any more.
        """
        settled = self.table.finished_keys(self.spec.run.retries)
        extras = (
            extra
            for extra in self._wanted()
            if (extra.layout.layout_id, extra.replicate) not in settled
        )
        return next(extras, None)

    def _wanted(self) -> Iterator[ExtraTrial]:
        again = range(1, self.spec.search.replicates)
        if self.spec.wants_baselines:
            layouts = self.baselines()
            yield from (
                ExtraTrial(layout, BASELINE, replicate)
                for replicate in (0, *again)
                for layout in layouts
            )
        if again and not any(trial.state == TrialState.RUNNING for trial in self.table.candidates):
            best = [
                Layout.parse(trial.user_attrs["layout"])
                for trial in ranked(self.table.trials)[:TOP]
            ]
            yield from (
                ExtraTrial(layout, REPLICATE, replicate) for replicate in again for layout in best
            )
