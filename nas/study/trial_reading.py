"""Trials of a study by one statement for each of Optuna's tables (Optuna 5, schema of
`optuna/storages/_rdb/models.py`).

Optuna makes an object of each row first, which for thousands of trials takes seconds. The scores by
epoch, which most rows are, come only where they are asked for.
"""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection, Engine

_TRIALS = sa.table(
    "trials",
    *map(sa.column, ("trial_id", "number", "study_id", "state")),
    sa.column("datetime_start", sa.DateTime),
    sa.column("datetime_complete", sa.DateTime),
)
_ODD_VALUES = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}
AT_ONCE = 500  # trials; the rows of all attributes of thousands take more memory than the trials
_Rows = dict[int, list[Any]]  # by trial id


def read_trials(
    engine: Engine,
    study_id: int,
    known: Collection[int] = (),
    above: int = -1,
    *,
    reports: bool = False,
) -> list[FrozenTrial]:
    """Read trials.

    Args:
        engine: of the database.
        study_id: Optuna's key of the study.
        known: keys of trials that are wanted.
        above: all with a larger key are wanted too.
        reports: with their scores by epoch.

    Returns:
        In the order of their keys; without reports `intermediate_values` are empty.
    """
    wanted = sa.or_(_TRIALS.c.trial_id > above, _TRIALS.c.trial_id.in_(list(known)))
    which = sa.and_(_TRIALS.c.study_id == study_id, wanted)
    with engine.connect() as connection:
        rows = connection.execute(sa.select(_TRIALS).where(which).order_by(_TRIALS.c.trial_id))
        keys = rows.all()
        return [
            trial
            for first in range(0, len(keys), AT_ONCE)
            for trial in _read_some(connection, which, keys[first : first + AT_ONCE], reports)
        ]


def _read_some(
    connection: Connection, which: Any, keys: Sequence[Any], reports: bool
) -> list[FrozenTrial]:
    """Trials of these rows, which are all that `which` has between the first and the last."""
    which = sa.and_(which, _TRIALS.c.trial_id.between(keys[0].trial_id, keys[-1].trial_id))
    values = _rows(connection, which, "trial_values", "objective", "value", "value_type")
    users = _rows(connection, which, "trial_user_attributes", "key", "value_json")
    system = _rows(connection, which, "trial_system_attributes", "key", "value_json")
    names = ("param_id", "param_name", "param_value", "distribution_json")
    params = _rows(connection, which, "trial_params", *names)
    scores = _reports(connection, which) if reports else {}
    return [
        _trial(
            row,
            values[row.trial_id],
            users[row.trial_id],
            system[row.trial_id],
            params[row.trial_id],
            scores.get(row.trial_id, {}),
        )
        for row in keys
    ]


def read_reports(
    engine: Engine, study_id: int, numbers: Collection[int]
) -> dict[int, dict[int, float]]:
    """Read the scores by epoch of trials with these numbers; those that have none are left out."""
    which = sa.and_(_TRIALS.c.study_id == study_id, _TRIALS.c.number.in_(list(numbers)))
    with engine.connect() as connection:
        of_key = sa.select(_TRIALS.c.trial_id, _TRIALS.c.number).where(which)
        number_of = dict(connection.execute(of_key).all())
        found = _reports(connection, which)
    return {number_of[key]: scores for key, scores in found.items()}


def _reports(connection: Connection, which: Any) -> dict[int, dict[int, float]]:
    names = ("step", "intermediate_value", "intermediate_value_type")
    rows = _rows(connection, which, "trial_intermediate_values", *names)
    return {
        key: {step: _number(value, kind) for _, step, value, kind in scores}
        for key, scores in rows.items()
    }


def _rows(connection: Connection, which: Any, table: str, *names: str) -> _Rows:
    """Rows of a table that belong to trials, each after the key of its trial."""
    of_table = sa.table(table, sa.column("trial_id"), *map(sa.column, names))
    columns = (of_table.c.trial_id, *(of_table.c[name] for name in names))
    same = of_table.c.trial_id == _TRIALS.c.trial_id
    found: _Rows = defaultdict(list)
    asked = sa.select(*columns).join_from(of_table, _TRIALS, same).where(which)
    for row in connection.execute(asked):
        found[row[0]].append(row)
    return found


def _trial(
    row: Any,
    values: list[Any],
    users: list[Any],
    system: list[Any],
    params: list[Any],
    scores: dict[int, float],
) -> FrozenTrial:
    by_name = {name: (value, _distribution(text)) for _, _, name, value, text in sorted(params)}
    return FrozenTrial(
        number=row.number,
        state=TrialState[row.state],
        value=None,
        values=[_number(value, kind) for _, _, value, kind in sorted(values)] or None,
        datetime_start=_local(row.datetime_start),
        datetime_complete=_local(row.datetime_complete),
        params={name: kind.to_external_repr(value) for name, (value, kind) in by_name.items()},
        distributions={name: kind for name, (_, kind) in by_name.items()},
        user_attrs=_attributes(users),
        system_attrs=_attributes(system),
        intermediate_values=scores,
        trial_id=row.trial_id,
    )


def _attributes(rows: list[Any]) -> dict[str, Any]:
    """One text for each key, however many trials have it."""
    return {sys.intern(key): json.loads(text) for _, key, text in rows}


@lru_cache(maxsize=1000)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


def _number(value: float | None, kind: str) -> float:
    return _ODD_VALUES[kind] if value is None else value


def _local(moment: datetime | None) -> datetime | None:
    """Optuna keeps times in UTC, and hands out those of this machine, both without a zone."""
    return moment and moment.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
