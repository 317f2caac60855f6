"""Why a trial is in a study, and the study as samplers and pruners see it: the candidates alone."""

from __future__ import annotations

from collections.abc import Container

import optuna
from optuna.trial import FrozenTrial, TrialState

CANDIDATE, BASELINE, REPLICATE = "candidate", "baseline", "replicate"
TAKEN_OVER = "taken over"  # a result of an earlier study, which nobody trained here


def role_of(trial: FrozenTrial) -> str:
    """Of a trial; one that has no layout yet is going to be a candidate."""
    return str(trial.user_attrs.get("role", CANDIDATE))


def role_label(role: str, replicate: int) -> str:
    """The role in words; later trainings of a layout are known by their seed, the first one's being
    1.
    """
    return f"{role}, seed {replicate + 1}" if replicate else role


def is_candidate(trial: FrozenTrial) -> bool:
    """It is what a search chooses among: a candidate of this study, or of an earlier one."""
    return role_of(trial) in (CANDIDATE, TAKEN_OVER)


class CandidateStudy(optuna.Study):
    """A study whose baselines and replicates nobody sees: they have no parameters, and were not
    chosen for their scores.
    """

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        return [
            trial
            for trial in super()._get_trials(deepcopy, states, use_cache)
            if is_candidate(trial)
        ]
