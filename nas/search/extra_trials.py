"""What a search trains beside its candidates: published baselines, and its best candidates once
more, with other seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from optuna.trial import TrialState

from nas.config.spec import SearchSpec
from nas.search.baselines import PUBLISHED
from nas.study.leaderboard import TOP, ranked
from nas.study.roles import BASELINE, REPLICATE
from nas.study.trials import TrialTable
from search_spaces.layout import Layout


@dataclass(frozen=True)
class ExtraTrial:
    """A training that is no candidate.

    Attributes:
        layout: what is trained.
        role: `baseline` or `replicate`, see `nas.study.roles`.
        replicate: which training of this layout it is; 0 is the first.
    """

    layout: Layout
    role: str
    replicate: int


def beside_candidates(spec: SearchSpec) -> int:
    """Count the trainings that a request wants beside its candidates."""
    again = spec.search.replicates
    return (len(PUBLISHED) * again if spec.wants_baselines else 0) + TOP * (again - 1)


class ExtraTrials:
    """Decides which trainings beside the candidates are still missing.

    Args:
        spec: the request: `search.baselines` and `search.replicates`.
        table: the trials, as last read.
        baselines: gives the layouts of the baselines; called only when they are needed.
    """

    def __init__(
        self, spec: SearchSpec, table: TrialTable, baselines: Callable[[], Sequence[Layout]]
    ) -> None:
        self.spec, self.table, self.baselines = spec, table, baselines

    def next(self) -> ExtraTrial | None:
        """Find the first training that is missing, baselines before replicates; None where there is
        none now. Which candidates are the best is not known while one is in training.
        """
        finished = self.table.finished_keys(self.spec.run.retries)
        missing = (
            extra
            for extra in self._planned()
            if (extra.layout.layout_id, extra.replicate) not in finished
        )
        return next(missing, None)

    def _planned(self) -> Iterator[ExtraTrial]:
        replicates = range(1, self.spec.search.replicates)
        if self.spec.wants_baselines:
            layouts = self.baselines()
            for replicate in (0, *replicates):
                yield from (ExtraTrial(layout, BASELINE, replicate) for layout in layouts)
        if replicates and not self._any_candidate_runs():
            best = [
                Layout.parse(trial.user_attrs["layout"])
                for trial in ranked(self.table.trials)[:TOP]
            ]
            for replicate in replicates:
                yield from (ExtraTrial(layout, REPLICATE, replicate) for layout in best)

    def _any_candidate_runs(self) -> bool:
        return any(trial.state == TrialState.RUNNING for trial in self.table.candidates)
