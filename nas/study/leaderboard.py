"""What a study has found: the leaderboard, and its trials as rows."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from nas.errors import StudyError, one_of
from nas.study.optuna_internals import CandidateStudy, storage_of
from nas.study.roles import is_candidate

TOP = 3  # candidates that replicates are for


def leaderboard(study: optuna.Study) -> list[FrozenTrial]:
    """COMPLETE candidates within the budget, the best first; see `ranked`."""
    return ranked(study.get_trials(deepcopy=False))


def ranked(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The same of trials that have been read, baselines and replicates among them.

    The order is that of mAP; that of the first `TOP` is, as far as all before were trained again,
    that of the mean of their replicates, because the score by which a candidate was found to be the
    best is likely to be a lucky one.
    """
    known = repetitions(trials)
    complete = [
        trial
        for trial in trials
        if is_candidate(trial) and trial.state == TrialState.COMPLETE and feasible(trial)
    ]
    board = sorted(complete, key=lambda trial: (-trial.values[0], trial.number))
    again = list(takewhile(lambda trial: trial.user_attrs.get("layout_id") in known, board[:TOP]))
    again.sort(key=lambda trial: -statistics.fmean(known[trial.user_attrs["layout_id"]]))
    return again + board[len(again) :]


def repetitions(trials: Iterable[FrozenTrial]) -> dict[str, list[float]]:
    """By layout id the mAP of the trainings with other seeds than the first."""
    found = defaultdict(list)
    for trial in trials:
        if (
            trial.user_attrs.get("replicate")
            and trial.state == TrialState.COMPLETE
            and feasible(trial)
        ):
            found[str(trial.user_attrs["layout_id"])].append(trial.values[0])
    return dict(found)


def pareto_front(study: optuna.Study) -> set[int]:
    """Numbers of the candidates within the budget that no other beats in every objective; empty
    with one objective.
    """
    if len(study.directions) == 1:
        return set()
    return {
        trial.number for trial in CandidateStudy(study.study_name, storage_of(study)).best_trials
    }


def feasible(trial: FrozenTrial) -> bool:
    """No constraint is violated."""
    return all(value <= 0 for value in trial.constraints.values())


def trial_row(trial: FrozenTrial) -> dict[str, Any]:
    """One trial as plain JSON: Optuna's number, state and (first) value, and our attributes."""
    state = "INFEASIBLE" if "infeasible_reason" in trial.user_attrs else trial.state.name
    return {
        "number": trial.number,
        "state": state,
        "value": trial.values[0] if trial.values else None,
        **trial.user_attrs,
    }


def find_trial(study: optuna.Study, number: int | None) -> FrozenTrial:
    """The trial with a number, or the best one.

    Raises:
        StudyError: there is none such, or it did not complete.
    """
    if number is None:
        if not (board := leaderboard(study)):
            raise StudyError(f"study {study.study_name!r} has no completed trial yet")
        return board[0]
    trials = study.get_trials(deepcopy=False)
    chosen = next((trial for trial in trials if trial.number == number), None)
    if chosen is None or chosen.state != TrialState.COMPLETE:
        complete = (
            ", ".join(str(trial.number) for trial in trials if trial.state == TrialState.COMPLETE)
            or "none"
        )
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
        raise StudyError(
            one_of("--study", name, names)
            if names
            else f"the database has no studies; got --study {name!r}"
        )
    return optuna.load_study(study_name=name, storage=storage)


def search_uuid(study: optuna.Study) -> str:
    """What identifies a search.

    Raises:
        StudyError: the study is none of ours.
    """
    if "nas_uuid" not in study.user_attrs:
        raise StudyError(f"study {study.study_name!r} is not a search")
    return str(study.user_attrs["nas_uuid"])
