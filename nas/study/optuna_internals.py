"""The only module that touches what Optuna keeps private: underscored attributes, an overridden
underscored method, and Optuna's own tables.

Written against Optuna 5 (`optuna/study/study.py`, `optuna/trial/_trial.py`,
`optuna/storages/_rdb/models.py`). A newer Optuna that breaks the search breaks it here, and
`tests/unit/study/test_optuna_internals.py` says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Container, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.study import StudySummary
from optuna.study._constrained_optimization import _CONSTRAINTS_KEY
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from sqlalchemy.engine import Engine

from nas.errors import StudyError, UserError
from nas.study.roles import is_candidate
from nas.study.trial_reading import read_trials

Storage = RDBStorage | InMemoryStorage  # what a search may be kept in
_ATTRIBUTES = sa.table(
    "trial_user_attributes", sa.column("trial_id"), sa.column("key"), sa.column("value_json")
)

_SYSTEM_ATTRIBUTES = sa.table("trial_system_attributes", sa.column("trial_id"), sa.column("key"))
_TRIALS = sa.table("trials", sa.column("trial_id"), sa.column("state"))


_STUDIES = sa.table("studies", sa.column("study_id"), sa.column("study_name"))
# What reading rows ends in that Optuna has not written itself.
_ODD = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError),
    *(TypeError, ValueError),
)


@contextmanager
def odd_rows_as_study_error(study_name: str) -> Iterator[None]:
    """In the block rows are read that whoever has the URL of the database may have written.

    Args:
        study_name: for the error.

    Raises:
        StudyError: Optuna cannot read them.
    """
    try:
        yield
    except UserError:
        raise
    except _ODD as error:
        said = " ".join(str(error).split())[:300]
        raise StudyError(
            f"study {study_name!r} cannot be read: the database holds what Optuna does not write "
            f"({type(error).__name__}: {said})"
        ) from error


def study_ids(storage: BaseStorage) -> dict[str, int]:
    """Keys of all studies of a database by their names, in the order in which they were made. Of
    the studies nothing else is read, which one of them may make impossible.
    """
    if isinstance(storage, InMemoryStorage):
        return {each.study_name: id_in_storage(each) for each in storage.get_all_studies()}
    database: Any = getattr(storage, "_backend", storage)  # it may lie behind a cache
    asked = sa.select(_STUDIES).order_by(_STUDIES.c.study_id)
    with database.engine.connect() as connection:
        return {str(row.study_name): row.study_id for row in connection.execute(asked)}


def id_in_storage(study: optuna.Study | FrozenStudy | StudySummary) -> int:
    """Key of a study in its database, which Optuna's storages ask for."""
    return study._study_id


def storage_of(study: optuna.Study) -> BaseStorage:
    """Storage of a study as Optuna itself uses it: a database lies behind a cache of ended
    trials.
    """
    return study._storage


def engine_of(study: optuna.Study) -> Engine | None:
    """The database of a study; None where it is kept in memory."""
    database: Any = getattr(study._storage, "_backend", study._storage)  # perhaps behind a cache
    engine: Engine | None = getattr(database, "engine", None)
    return engine


def quick_storage(storage: RDBStorage, *, reports: bool) -> BaseStorage:
    """A storage of the same database that reads trials as `nas.study.trial_reading` does, ended
    ones once.

    Args:
        storage: of the database.
        reports: trials have their scores by epoch.
    """
    quick = object.__new__(RDBStorage)
    quick.__dict__.update(storage.__dict__)

    def get_trials(
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        trials = read_trials(
            storage.engine, study_id, included_trial_ids, trial_id_greater_than, reports=reports
        )
        return [trial for trial in trials if states is None or trial.state in states]

    quick._get_trials = get_trials  # type: ignore[method-assign]
    return optuna.storages.get_storage(quick)


def all_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Every trial of a study by number, whatever `CandidateStudy` hides. They are not copies: leave
    them unchanged.

    Raises:
        StudyError: there are rows that Optuna cannot read.
    """
    with odd_rows_as_study_error(study.study_name):
        return study._storage.get_all_trials(study._study_id, deepcopy=False)


def start_trial(study: optuna.Study, attributes: Mapping[str, Any]) -> Trial:
    """Create a running trial that no sampler chose and that has no parameters.

    Args:
        study: that the trial belongs to.
        attributes: user attributes, which are there from the trial's first moment on: no other
            driver sees the trial without them.
    """
    template = create_trial(state=TrialState.RUNNING, user_attrs=dict(attributes))
    return Trial(study, study._storage.create_new_trial(study._study_id, template))


def reopen_trial(study: optuna.Study, trial: FrozenTrial) -> Trial:
    """Get the handle with which a running trial, perhaps begun by another process, is reported to
    and ended.
    """
    return Trial(study, trial._trial_id)


def set_attributes(storage: Storage, trial: Trial, values: Mapping[str, Any]) -> None:
    """Write user attributes of a running trial in one transaction; Optuna's interface needs one for
    each.

    Args:
        storage: of the trial's study.
        trial: running.
        values: JSON by name.

    Raises:
        optuna.exceptions.UpdateFinishedTrialError: the trial has ended; it stays as it is.
    """
    if isinstance(storage, InMemoryStorage):
        for key, value in values.items():
            storage.set_trial_user_attr(trial._trial_id, key, value)
        return
    of_trial = _ATTRIBUTES.c.trial_id == trial._trial_id
    rows = [
        {"trial_id": trial._trial_id, "key": key, "value_json": json.dumps(value)}
        for key, value in values.items()
    ]
    with storage.engine.begin() as connection:
        state = sa.select(_TRIALS.c.state).where(_TRIALS.c.trial_id == trial._trial_id)
        if TrialState[connection.execute(state.with_for_update()).scalar_one()].is_finished():
            raise UpdateFinishedTrialError(f"trial {trial.number} has ended")
        connection.execute(
            sa.delete(_ATTRIBUTES).where(of_trial, _ATTRIBUTES.c.key.in_(list(values)))
        )
        connection.execute(sa.insert(_ATTRIBUTES), rows)


def set_constraint(storage: Storage, trial: Trial, key: str, value: float) -> None:
    """Write a constraint of a running trial, which is feasible at 0 and below, in place of an
    earlier one of that name.

    It is written twice: as Optuna 5 keeps constraints, and as the list that Optuna Dashboard reads.
    Optuna adds the entries of that list to the trial's constraints, numbered.
    """
    storage.set_trial_system_attr(trial._trial_id, f"{_CONSTRAINTS_KEY}:{key}", value)
    _list_constraints(storage, trial)


def forget_end(
    storage: Storage, trial: Trial, attributes: Collection[str], constraint: str
) -> None:
    """Take away what somebody else wrote of the end of a running trial and did not come to finish.
    In memory nobody else writes.

    Args:
        storage: of the trial's study.
        trial: running.
        attributes: names of user attributes.
        constraint: name of a constraint.
    """
    if isinstance(storage, InMemoryStorage):
        return
    keys = {_ATTRIBUTES: [*attributes], _SYSTEM_ATTRIBUTES: [f"{_CONSTRAINTS_KEY}:{constraint}"]}
    with storage.engine.begin() as connection:
        removed = [
            connection.execute(
                sa.delete(table).where(table.c.trial_id == trial._trial_id, table.c.key.in_(names))
            ).rowcount
            for table, names in keys.items()
        ]
    if any(removed):
        _list_constraints(storage, trial)


def _list_constraints(storage: Storage, trial: Trial) -> None:
    values = [each for name, each in trial.constraints.items() if not name.isdigit()]
    storage.set_trial_system_attr(trial._trial_id, "constraints", values)


def unwrap_bracket(study: optuna.Study) -> optuna.Study:
    """Get the study itself in place of the bracket that Optuna makes of it for Hyperband.

    Samplers read the whole study through a bracket, too, but as the database has it, with baselines
    and replicates, which `CandidateStudy` hides.
    """
    return getattr(study, "_study", study)


class CandidateStudy(optuna.Study):
    """A study as samplers and pruners are to see it: without baselines and replicates, which have
    no parameters and were not chosen for their scores.
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


class MappedStudy(optuna.Study):
    """A study whose trials a pruner sees changed; nothing is written.

    Args:
        study: whose trials are shown.
        change: makes of a trial what is shown in its place.
    """

    def __init__(self, study: optuna.Study, change: Callable[[FrozenTrial], FrozenTrial]) -> None:
        super().__init__(study.study_name, study._storage, study.sampler, study.pruner)
        self._shown, self._change = study, change

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return [self._change(trial) for trial in self._shown.get_trials(deepcopy, states)]
