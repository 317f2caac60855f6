"""A study as our pages read it: once, at the moment somebody looks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from nas.reports import BaselineRow, LeaderboardRow, TrialRow
from nas.search.multifidelity.expected import expected_board
from nas.study.attributes import study_attributes, study_trials
from nas.study.leaderboard import trial_rows
from nas.study.roles import CANDIDATE
from nas.study.significance import against_baselines, board_rows
from search_spaces.errors import UserError
from search_spaces.layout import Layout

# The states of a `TrialRow`, in the order in which plots show them.
MOST_DRAWN, MOST_CURVES = 600, 100  # of which a browser still draws plots at once
MOST_EXPECTED = 300  # trials that the model of expected scores takes less than a second for
STATES = ("COMPLETE", "PRUNED", "INFEASIBLE", "FAIL", "RUNNING", "WAITING")


@dataclass(frozen=True)
class StudyView:
    """One reading of a study. The study need not be a search of ours: what it has not got is left
    out.

    Args:
        study: the study.
        trials: all its trials, in the order of their numbers.
        attributes: user attributes of the study as `nas.study.attributes` reads them.
        curves: by the number of a trial its scores by epoch, 0 to 1.
    """

    study: optuna.Study
    trials: list[FrozenTrial]
    attributes: dict[str, Any]
    curves: Mapping[int, Mapping[int, float]]

    @classmethod
    def read(cls, study: optuna.Study) -> StudyView:
        """Read what the database has now."""
        trials = study_trials(study)
        curves = {trial.number: trial.intermediate_values for trial in trials}
        return cls(study, trials, study_attributes(study), curves)

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
        return trial_rows(self.study, self.trials)

    @cached_property
    def drawn(self) -> list[TrialRow]:
        """The trials that plots have a point of: all, or of more than `MOST_DRAWN` the best tenth
        of that number and an even sample of the others, in the order of their numbers.
        """
        return _thinned(self.rows, MOST_DRAWN)

    @cached_property
    def drawn_curves(self) -> list[TrialRow]:
        """Those that have a curve, likewise."""
        return _thinned(self.rows, MOST_CURVES)

    @property
    def is_thinned(self) -> bool:
        """Whether plots leave trials out."""
        return len(self.rows) > MOST_CURVES

    @property
    def needed_curves(self) -> list[int]:
        """Numbers of the trials whose scores by epoch the pages of the study need."""
        rows = self.rows if len(self.rows) <= MOST_EXPECTED else self.drawn_curves
        return [row.number for row in rows]

    @cached_property
    def board(self) -> list[LeaderboardRow]:
        """The leaderboard, the best candidate first, with what is expected of each where that is
        quickly told.
        """
        epochs = self.spec.get("recipe", {}).get("epochs")
        if not epochs or len(self.trials) > MOST_EXPECTED:
            return board_rows(self.trials)
        return expected_board([self._with_curve(trial) for trial in self.trials], epochs)

    def _with_curve(self, trial: FrozenTrial) -> FrozenTrial:
        whole = copy(trial)
        whole.intermediate_values = dict(self.curves.get(trial.number, {}))
        return whole

    @cached_property
    def baselines(self) -> list[BaselineRow]:
        """Published backbones beside the best candidate."""
        return against_baselines(self.attributes, self.trials)

    @cached_property
    def states(self) -> Counter[str]:
        """Number of candidates trained here by state, and of all other trials by role."""
        return Counter(row.state if row.role in ("", CANDIDATE) else row.role for row in self.rows)

    @property
    def is_running(self) -> bool:
        """Whether a trial is being trained, as far as the database knows."""
        return any(row.state == "RUNNING" for row in self.rows)


def _thinned(rows: list[TrialRow], most: int) -> list[TrialRow]:
    if len(rows) <= most:
        return rows
    by_score = sorted(rows, key=lambda row: (-(row.map or 0.0), row.number))
    best, others = by_score[: most // 10], sorted(by_score[most // 10 :], key=lambda r: r.number)
    step = len(others) / (most - len(best))
    sample = [others[int(place * step)] for place in range(most - len(best))]
    return sorted([*best, *sample], key=lambda row: row.number)


def pattern(layout: str | None) -> str | None:
    """Kinds of the four stages of a layout in text form, `C-C-T-T`; None where it is no layout."""
    try:
        return Layout.parse(layout).pattern if layout else None
    except UserError:
        return None
