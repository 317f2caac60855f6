"""The trials of a study as the database has them: read once for each decision, their attributes
written in one transaction.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from nas.study import schema as attributes
from nas.study.roles import CANDIDATE, TAKEN_OVER, role_of
from nas.utils.formatting import GIB

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
# Optuna's own table, which its interface writes one row a transaction.
_ATTRIBUTES = sa.table(
    "trial_user_attributes", sa.column("trial_id"), sa.column("key"), sa.column("value_json")
)


class TrialTable:
    """What one driver knows of the trials. `read` brings it up to date; everything else answers
    from the last reading.

    Args:
        study: of the search.
        storage: its database, or memory.
    """

    def __init__(self, study: optuna.Study, storage: RDBStorage | InMemoryStorage) -> None:
        self.study, self.storage = study, storage
        self.read()

    def read(self) -> None:
        """Look into the database."""
        self.trials = self.study._storage.get_all_trials(
            self.study._study_id, deepcopy=False
        )  # all roles

    def __getitem__(self, number: int) -> FrozenTrial:
        return next(trial for trial in self.trials if trial.number == number)

    @property
    def trained(self) -> list[FrozenTrial]:
        """Trials that reached a worker, or will."""
        return [trial for trial in self.trials if role_of(trial) != TAKEN_OVER]

    @property
    def candidates(self) -> list[FrozenTrial]:
        """Those of them that the sampler chose, or will."""
        return [trial for trial in self.trials if role_of(trial) == CANDIDATE]

    @property
    def running(self) -> list[FrozenTrial]:
        """Trials of living and dead drivers."""
        return [trial for trial in self.trials if trial.state == TrialState.RUNNING]

    @property
    def ended(self) -> int:
        """Candidates that reached a worker and ended COMPLETE, PRUNED or infeasible."""
        return sum(trial.state in ENDED for trial in self.candidates)

    @property
    def started(self) -> int:
        """Candidates that count towards those asked for, or will unless they fail: ended ones and
        all that run.
        """
        return self.ended + sum(trial.state == TrialState.RUNNING for trial in self.candidates)

    def trained_layout_ids(self, retries: int) -> set[str]:
        """Ids of layouts that are trained, in training, or have failed more often than
        `retries`.
        """
        known = [
            (trial.user_attrs["layout_id"], trial.state)
            for trial in self.trials
            if "layout_id" in trial.user_attrs
        ]
        failed = Counter(layout_id for layout_id, state in known if state == TrialState.FAIL)
        taken = {layout_id for layout_id, state in known if state in (*ENDED, TrialState.RUNNING)}
        return taken | {layout_id for layout_id, count in failed.items() if count > retries}

    def finished_keys(self, retries: int) -> set[tuple[str, int]]:
        """Layout ids and replicates that have been trained to their end, are in training, proved
        too large or have failed more often than `retries`.
        """
        known = [
            (trial, (trial.user_attrs["layout_id"], trial.user_attrs.get("replicate", 0)))
            for trial in self.trials
            if "layout_id" in trial.user_attrs
        ]
        failed = Counter(key for trial, key in known if trial.state == TrialState.FAIL)
        done = (TrialState.COMPLETE, TrialState.RUNNING)
        settled = {
            key
            for trial, key in known
            if trial.state in done or "infeasible_reason" in trial.user_attrs
        }
        return settled | {key for key, count in failed.items() if count > retries}

    def fails_in_a_row(self) -> int:
        """How many of the latest trials that ended are FAIL."""
        states = [trial.state for trial in self.trained if trial.state.is_finished()]
        return next(
            (count for count, state in enumerate(reversed(states)) if state != TrialState.FAIL),
            len(states),
        )

    def set(self, trial: Trial, **values: Any) -> None:
        """Write attributes of a running trial.

        Raises:
            KeyError: one that `nas.study.schema` does not list.
        """
        if unknown := sorted(set(values) - set(attributes.TRIAL)):
            raise KeyError(f"trial attribute {unknown[0]!r} is not documented in nas.study.schema")
        if isinstance(self.storage, InMemoryStorage):
            for key, value in values.items():
                self.storage.set_trial_user_attr(trial._trial_id, key, value)
            return
        this = _ATTRIBUTES.c.trial_id == trial._trial_id
        rows = [
            {"trial_id": trial._trial_id, "key": key, "value_json": json.dumps(value)}
            for key, value in values.items()
        ]
        with self.storage.engine.begin() as connection:
            connection.execute(
                sa.delete(_ATTRIBUTES).where(this, _ATTRIBUTES.c.key.in_(list(values)))
            )
            connection.execute(sa.insert(_ATTRIBUTES), rows)

    def constrain(self, trial: Trial, key: str, excess_bytes: int) -> None:
        """Feasible at 0 and below. The second form is the one that Optuna Dashboard reads; Optuna
        numbers its entries.
        """
        trial.set_constraint(key, excess_bytes / GIB)
        values = [value for name, value in trial.constraints.items() if not name.isdigit()]
        self.storage.set_trial_system_attr(trial._trial_id, "constraints", values)
