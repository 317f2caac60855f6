"""A study as our pages read it: once, at the moment somebody looks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from nas.reports import BaselineRow, LeaderboardRow, TrialRow
from nas.study.attributes import study_attributes, study_trials
from nas.study.leaderboard import trial_row
from nas.study.roles import CANDIDATE
from nas.study.significance import against_baselines, board_rows
from search_spaces.errors import UserError
from search_spaces.layout import Layout

# The states of a `TrialRow`, in the order in which plots show them.
STATES = ("COMPLETE", "PRUNED", "INFEASIBLE", "FAIL", "RUNNING", "WAITING")


@dataclass(frozen=True)
class StudyView:
    """One reading of a study. The study need not be a search of ours: what it has not got is left
    out.

    Args:
        study: the study.
        trials: all its trials, in the order of their numbers.
        attributes: user attributes of the study as `nas.study.attributes` reads them.
    """

    study: optuna.Study
    trials: list[FrozenTrial]
    attributes: dict[str, Any]

    @classmethod
    def read(cls, study: optuna.Study) -> StudyView:
        """Read what the database has now."""
        return cls(study, study_trials(study), study_attributes(study))

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.study.study_name

    @property
    def spec(self) -> dict[str, Any]:
        """The request as plain JSON, see `nas.config.spec.SearchSpec`; empty for a study that is no
        search.
        """
        return dict(self.attributes.get("nas_spec", {}))

    @property
    def budget_gib(self) -> float | None:
        """Memory budget per GPU in GiB; None for a study that is no search."""
        return self.attributes.get("nas_budget_gib")

    @cached_property
    def rows(self) -> list[TrialRow]:
        """All trials, in the order of their numbers."""
        return [trial_row(trial) for trial in self.trials]

    @cached_property
    def board(self) -> list[LeaderboardRow]:
        """The leaderboard, the best candidate first."""
        return board_rows(self.trials)

    @cached_property
    def baselines(self) -> list[BaselineRow]:
        """Published backbones beside the best candidate."""
        return against_baselines(self.attributes, self.trials)

    @cached_property
    def states(self) -> Counter[str]:
        """Number of candidates trained here by state, and of all other trials by role."""
        return Counter(row.state if row.role in ("", CANDIDATE) else row.role for row in self.rows)


def pattern(layout: str | None) -> str | None:
    """Kinds of the four stages of a layout in text form, `C-C-T-T`; None where it is no layout."""
    try:
        return Layout.parse(layout).pattern if layout else None
    except UserError:
        return None
