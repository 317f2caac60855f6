"""What a study has found: the leaderboard, and its trials as rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from nas.errors import StudyError, one_of


def leaderboard(study: optuna.Study) -> list[FrozenTrial]:
    """COMPLETE trials within the budget, the best mAP first."""
    return ranked(study.get_trials(deepcopy=False))


def ranked(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The same of trials that have been read."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE and feasible(trial)]
    return sorted(complete, key=lambda trial: (-trial.values[0], trial.number))


def pareto_front(study: optuna.Study) -> set[int]:
    """Numbers of the trials within the budget that no other beats in every objective; empty with one objective."""
    return {trial.number for trial in study.best_trials} if len(study.directions) > 1 else set()


def feasible(trial: FrozenTrial) -> bool:
    """No constraint is violated."""
    return all(value <= 0 for value in trial.constraints.values())


def trial_row(trial: FrozenTrial) -> dict[str, Any]:
    """One trial as plain JSON: Optuna's number, state and (first) value, and our attributes."""
    state = "INFEASIBLE" if "infeasible_reason" in trial.user_attrs else trial.state.name
    return {"number": trial.number, "state": state, "value": trial.values[0] if trial.values else None, **trial.user_attrs}


def find_trial(study: optuna.Study, number: int | None) -> FrozenTrial:
    """The trial with a number, or the best one.

    Raises:
        StudyError: there is none such, or it did not complete.
    """
    board = leaderboard(study)
    if number is None:
        if not board:
            raise StudyError(f"study {study.study_name!r} has no completed trial yet")
        return board[0]
    chosen = next((trial for trial in study.get_trials(deepcopy=False) if trial.number == number), None)
    if chosen is None or chosen.state != TrialState.COMPLETE:
        complete = ", ".join(str(trial.number) for trial in board) or "none"
        said = "there is none" if chosen is None else f"it is {chosen.state.name}"
        raise StudyError(f"--trial must be one that completed ({complete}); got {number}, {said}")
    return chosen


def load_study(storage: optuna.storages.RDBStorage, name: str | None) -> optuna.Study:
    """A study by its name; without one the only study there is.

    Raises:
        StudyError: no such study, or no name and several studies.
    """
    names = optuna.get_all_study_names(storage)
    if name is None and len(names) == 1:
        name = names[0]
    if name is None:
        raise StudyError(f"--study is needed: the database has {', '.join(names) or 'no studies'}")
    if name not in names:
        raise StudyError(one_of("--study", name, names) if names else f"the database has no studies; got --study {name!r}")
    return optuna.load_study(study_name=name, storage=storage)


def search_uuid(study: optuna.Study) -> str:
    """What identifies a search.

    Raises:
        StudyError: the study is none of ours.
    """
    if "nas_uuid" not in study.user_attrs:
        raise StudyError(f"study {study.study_name!r} is not a search")
    return str(study.user_attrs["nas_uuid"])
