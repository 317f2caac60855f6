"""The leaderboard of a study, its trials as rows, and how a study is found by its name."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import takewhile

import optuna
from optuna.trial import FrozenTrial, TrialState

from nas.errors import StudyError, one_of
from nas.reports import TrialRow
from nas.study.attributes import number_of_objectives, study_attributes, study_trials
from nas.study.lease import trials_in_hand
from nas.study.optuna_internals import (
    CandidateStudy,
    engine_of,
    odd_rows_as_study_error,
    storage_of,
    study_ids,
)
from nas.study.roles import is_candidate

RUNNING = TrialState.RUNNING.name
TOP = 3  # candidates that replicates are for


def leaderboard(study: optuna.Study) -> list[FrozenTrial]:
    """The COMPLETE candidates of a study that are within the budget, in the order of `ranked`."""
    return ranked(study_trials(study))


def ranked(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Those of a study's trials that are COMPLETE candidates within the budget, the best first.

    The order is that of mAP. The first `TOP` are ordered by the mean mAP of their replicates, as
    far as all before them were trained again: the score by which a candidate was found to be the
    best is likely to be a lucky one.

    Args:
        trials: of one study, all roles and states.
    """
    repeated = repetitions(trials)
    complete = [
        trial
        for trial in trials
        if is_candidate(trial) and trial.state == TrialState.COMPLETE and feasible(trial)
    ]
    board = sorted(complete, key=lambda trial: (-trial.values[0], trial.number))
    again = list(
        takewhile(lambda trial: trial.user_attrs.get("layout_id") in repeated, board[:TOP])
    )
    again.sort(key=lambda trial: -statistics.fmean(repeated[trial.user_attrs["layout_id"]]))
    return again + board[len(again) :]


def repetitions(trials: Iterable[FrozenTrial]) -> dict[str, list[float]]:
    """mAP of completed replicates, fractions 0 to 1, by layout id, in the order of the trials."""
    scores = defaultdict(list)
    for trial in trials:
        if (
            trial.user_attrs.get("replicate")
            and trial.state == TrialState.COMPLETE
            and feasible(trial)
        ):
            scores[str(trial.user_attrs["layout_id"])].append(trial.values[0])
    return dict(scores)


def pareto_front(study: optuna.Study) -> set[int]:
    """Numbers of the candidates within the budget that no other candidate dominates, that is, is
    as good as in every objective and better in one; empty with one objective.
    """
    if len(study.directions) == 1:
        return set()
    return {
        trial.number for trial in CandidateStudy(study.study_name, storage_of(study)).best_trials
    }


def feasible(trial: FrozenTrial) -> bool:
    """Whether a trial violates no constraint of Optuna's; those of a search are its memory."""
    return all(value <= 0 for value in trial.constraints.values())


def trial_rows(study: optuna.Study, trials: Iterable[FrozenTrial]) -> list[TrialRow]:
    """Trials of a study as rows. One that runs, as Optuna has it, and is in the hands of no living
    driver is `WAITING`: the next command of the search goes on with it.

    Raises:
        StudyError: what the database says of drivers cannot be read.
    """
    rows = [trial_row(trial) for trial in trials]
    engine, study_uuid = engine_of(study), study_attributes(study).get("nas_uuid")
    if engine is None or study_uuid is None or not any(row.state == RUNNING for row in rows):
        return rows
    with odd_rows_as_study_error(study.study_name):
        in_hand = trials_in_hand(engine, study_uuid)
    return [
        row if row.state != RUNNING or row.number in in_hand else replace(row, state="WAITING")
        for row in rows
    ]


def trial_row(trial: FrozenTrial) -> TrialRow:
    """One trial of a study as a row; with several objectives `value` is the first of them."""
    value = trial.values[0] if trial.values else None
    return TrialRow.from_attributes(trial.number, trial.state.name, value, trial.user_attrs)


def find_trial(study: optuna.Study, number: int | None) -> FrozenTrial:
    """A completed trial of a study.

    Args:
        study: where to look.
        number: of the trial; None for the best of the leaderboard.

    Raises:
        StudyError: no trial has the number, or it did not complete; or the leaderboard is empty.
    """
    if number is None:
        if not (board := leaderboard(study)):
            raise StudyError(f"study {study.study_name!r} has no completed trial yet")
        return board[0]
    trials = study_trials(study)
    chosen = next((trial for trial in trials if trial.number == number), None)
    if chosen is None or chosen.state != TrialState.COMPLETE:
        complete = (
            ", ".join(str(trial.number) for trial in trials if trial.state == TrialState.COMPLETE)
            or "none"
        )
        state = "there is none" if chosen is None else f"it is {chosen.state.name}"
        raise StudyError(f"--trial must be one that completed ({complete}); got {number}, {state}")
    return chosen


def find_front(study: optuna.Study) -> list[FrozenTrial]:
    """The completed trials of the Pareto front, in the order of the leaderboard.

    Raises:
        StudyError: the study has one objective, or nothing is complete.
    """
    if len(study.directions) == 1:
        raise StudyError(
            f"study {study.study_name!r} has one objective and no Pareto front: --objectives "
            "map,latency makes a search that has one"
        )
    front = pareto_front(study)
    if not front:
        raise StudyError(f"study {study.study_name!r} has no completed trial yet")
    return [trial for trial in leaderboard(study) if trial.number in front]


def load_study(storage: optuna.storages.RDBStorage, name: str | None) -> optuna.Study:
    """A study of a database.

    Args:
        storage: the database.
        name: of the study; None for the only one that there is.

    Raises:
        StudyError: there is no such study, it is of another program or cannot be read, or, without
            a name, there is none or several.
    """
    names = [*study_ids(storage)]
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
    with odd_rows_as_study_error(name):
        study = optuna.load_study(study_name=name, storage=storage)
        search_uuid(study)
        number_of_objectives(study)
    return study


def search_uuid(study: optuna.Study) -> str:
    """The identifier of a search, which stays its own when its name is used again.

    Raises:
        StudyError: the study was not made by a search.
    """
    if "nas_uuid" not in (known := study_attributes(study)):
        raise StudyError(f"study {study.study_name!r} is not a search")
    return str(known["nas_uuid"])
