"""A study as our pages read it: once, at the moment somebody looks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from nas.study.leaderboard import pareto_front, trial_row
from nas.study.roles import CANDIDATE
from nas.study.significance import against_baselines, board_rows

STATES = (
    "COMPLETE",
    "PRUNED",
    "INFEASIBLE",
    "FAIL",
    "RUNNING",
    "WAITING",
)  # as `trial_row` names them


@dataclass(frozen=True)
class StudyView:
    """One reading of a study. It need not be a search of ours: what it does not have is left
    out.
    """

    study: optuna.Study
    trials: list[FrozenTrial]
    known: dict[str, Any]

    @classmethod
    def read(cls, study: optuna.Study) -> StudyView:
        """What the database has now."""
        return cls(study, study.get_trials(deepcopy=False), study.user_attrs)

    @property
    def name(self) -> str:
        """Of the study."""
        return self.study.study_name

    @property
    def spec(self) -> dict[str, Any]:
        """The request; empty for a study that is no search."""
        return dict(self.known.get("nas_spec", {}))

    @property
    def budget_gib(self) -> float | None:
        """Limit of the memory."""
        return self.known.get("nas_budget_gib")

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The trials as plain JSON, in the order of their numbers."""
        return [trial_row(trial) for trial in self.trials]

    @cached_property
    def board(self) -> list[dict[str, Any]]:
        """Rows of the leaderboard, the best first, see `nas.study.significance`; `pareto` says
        which are on the front.
        """
        front = pareto_front(self.study)
        return [row | {"pareto": row["number"] in front} for row in board_rows(self.trials)]

    @cached_property
    def baselines(self) -> list[dict[str, Any]]:
        """Published backbones beside the best candidate, see `nas.study.significance`."""
        return against_baselines(self.known, self.trials)

    @cached_property
    def states(self) -> Counter[str]:
        """How many candidates were trained here, by state; all other trials count by their role."""
        roles = [row.get("role", CANDIDATE) for row in self.rows]
        return Counter(
            row["state"] if role == CANDIDATE else role
            for role, row in zip(roles, self.rows, strict=True)
        )


def memory_gib(row: dict[str, Any]) -> float | None:
    """Measured, else predicted."""
    return row.get("memory_peak_gib") or row.get("memory_predicted_gib")


def pattern(row: dict[str, Any]) -> str | None:
    """`C-C-T-T` of a trial's layout; None of one that has no layout."""
    stages = str(row.get("layout", "")).partition("@")[0].partition("+")[0]
    return "-".join(stage[:1] for stage in stages.split("-")) if stages else None
