"""The trials of a study as the database has them: read once for each decision, their attributes
written in one transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import takewhile
from typing import Any, TypeVar

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from nas.errors import StudyError
from nas.study import schema
from nas.study.attributes import readable_trial
from nas.study.optuna_internals import (
    Storage,
    all_trials,
    forget_end,
    set_attributes,
    set_constraint,
)
from nas.study.roles import CANDIDATE, TAKEN_OVER, role_of
from nas.utils.formatting import GIB

Key = TypeVar("Key")
MEASURED = "memory_peak"  # the constraint of what was measured, beside that of the prediction
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
_OF_COMPLETE = {"layout", "layout_id", "device"}


class TrialTable:
    """All trials of one study, of every role and of every driver, as they were when `read` was last
    called; everything else answers from that reading.

    Args:
        study: the study; its own view of the trials may be filtered, this one is not.
        storage: where the study is kept.
    """

    def __init__(self, study: optuna.Study, storage: Storage) -> None:
        self.study, self.storage = study, storage
        self.read()

    def read(self) -> None:
        """Read all trials anew, without attributes that no search has written.

        Raises:
            StudyError: there are rows that Optuna cannot read, or a trial that no search completed.
        """
        self.trials = [readable_trial(trial) for trial in all_trials(self.study)]
        for trial in self.trials:
            if trial.state == TrialState.COMPLETE and not trial.user_attrs.keys() >= _OF_COMPLETE:
                raise StudyError(
                    f"trial {trial.number} of study {self.study.study_name!r} is complete without "
                    f"{', '.join(sorted(_OF_COMPLETE - trial.user_attrs.keys()))}: no search has "
                    "written it"
                )

    def __getitem__(self, number: int) -> FrozenTrial:
        """Get a trial by its number.

        Raises:
            StopIteration: there was none when the table was read.
        """
        return next(trial for trial in self.trials if trial.number == number)

    @property
    def trained(self) -> list[FrozenTrial]:
        """Trials that a worker of this study trained, or will: all that were not taken over."""
        return [trial for trial in self.trials if role_of(trial) != TAKEN_OVER]

    @property
    def candidates(self) -> list[FrozenTrial]:
        """Trials that the sampler chose, or is choosing: without baselines, replicates and results
        that were taken over.
        """
        return [trial for trial in self.trials if role_of(trial) == CANDIDATE]

    @property
    def running(self) -> list[FrozenTrial]:
        """Trials in state RUNNING, of living and of dead drivers."""
        return [trial for trial in self.trials if trial.state == TrialState.RUNNING]

    @property
    def ended(self) -> int:
        """Number of candidates that reached a worker and ended COMPLETE, PRUNED or infeasible."""
        return sum(trial.state in ENDED for trial in self.candidates)

    @property
    def started(self) -> int:
        """Number of candidates that count towards those asked for, or will unless they fail: ended
        ones and all that run.
        """
        return self.ended + sum(trial.state == TrialState.RUNNING for trial in self.candidates)

    def trained_layout_ids(self, retries: int) -> set[str]:
        """Ids of the layouts that must not be suggested again: they are trained, pruned or in
        training, or have failed more often than `retries`, each death of a worker counted.
        """
        described = self._described()
        failed = _times_failed(described, lambda trial: trial.user_attrs["layout_id"])
        return {
            trial.user_attrs["layout_id"]
            for trial in described
            if trial.state in (*ENDED, TrialState.RUNNING)
        } | {layout_id for layout_id, count in failed.items() if count > retries}

    def finished_keys(self, retries: int) -> set[tuple[str, int]]:
        """Layout ids and replicates that must not be trained again beside the candidates: they have
        been trained to the end of the recipe, are in training, proved too large, or have failed
        more often than `retries`. A pruned training is no end.
        """
        described = self._described()
        failed = _times_failed(described, _key)
        return {
            _key(trial)
            for trial in described
            if trial.state in (TrialState.COMPLETE, TrialState.RUNNING)
            or "infeasible_reason" in trial.user_attrs
        } | {key for key, count in failed.items() if count > retries}

    def fails_in_a_row(self) -> int:
        """Number of the latest ended trials, by number, that are all FAIL."""
        ended = [trial for trial in self.trained if trial.state.is_finished()]
        return len(list(takewhile(lambda trial: trial.state == TrialState.FAIL, reversed(ended))))

    def set(self, trial: Trial, **values: Any) -> None:
        """Write attributes of a running trial, in one transaction.

        Raises:
            KeyError: an attribute is not listed in `nas.study.schema`.
        """
        if unknown := sorted(set(values) - set(schema.TRIAL)):
            raise KeyError(f"trial attribute {unknown[0]!r} is not documented in nas.study.schema")
        set_attributes(self.storage, trial, values)

    def constrain(self, trial: Trial, key: str, excess_bytes: int) -> None:
        """Write a constraint of a running trial.

        Args:
            trial: the trial, running.
            key: name of the constraint.
            excess_bytes: by how much the trial is above its limit; feasible at 0 and below. It is
                kept in GiB.
        """
        set_constraint(self.storage, trial, key, excess_bytes / GIB)

    def forget_end(self, trial: Trial) -> None:
        """Take away how a running trial was going to end when its driver died or lost it: why it
        failed or did not fit, and that it did not.
        """
        forget_end(self.storage, trial, ("fail_reason", "infeasible_reason"), MEASURED)

    def _described(self) -> list[FrozenTrial]:
        """Trials whose layout has been chosen."""
        return [trial for trial in self.trials if "layout_id" in trial.user_attrs]


def _times_failed(trials: list[FrozenTrial], key: Callable[[FrozenTrial], Key]) -> Counter[Key]:
    failed: Counter[Key] = Counter()
    for trial in trials:
        if trial.state == TrialState.FAIL:
            failed[key(trial)] += trial.user_attrs.get("worker_deaths") or 1
    return failed


def _key(trial: FrozenTrial) -> tuple[str, int]:
    return trial.user_attrs["layout_id"], trial.user_attrs.get("replicate", 0)
