"""Attributes of studies and trials as they must be for this program to read them.

Whoever has the URL of a database may write any there, and other programs keep studies beside ours.
What is not of the form of `nas.study.schema` is as good as not there.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Annotated, Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, Field, StrictBool, StrictInt, StrictStr, TypeAdapter
from pydantic import ValidationError as PydanticError

from nas.study import schema
from nas.study.optuna_internals import odd_rows_as_study_error

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Plain = dict[StrictStr, Any]
_TEXTS = ("layout", "layout_id", "role", "detector", "device", "checkpoint", "origin")
_COUNTS = ("worker_deaths", "replicate", "params", "flops", "epochs", "kept_epoch")
_PLAIN = ("hardware", "calibration")


class _Named(BaseModel):
    name: StrictStr


class _Recipe(_Named):
    epochs: Count
    image_size: Count
    batch: Count
    optimizer: StrictStr
    lr: Number
    precision: StrictStr


class _Data(BaseModel):
    root: StrictStr


class _Search(BaseModel):
    objectives: list[StrictStr]
    trials: Count
    sampler: StrictStr
    pruner: StrictStr


class _Calibration(BaseModel):
    enabled: StrictBool


class _Request(BaseModel):
    """What is read of a request; keys that are not named here may be there."""

    storage: StrictStr
    space: _Named
    detector: _Named
    recipe: _Recipe
    data: _Data
    search: _Search
    calibration: _Calibration
    budget: Plain


class _Facts(BaseModel):
    fingerprint: StrictStr
    categories: list[StrictStr]
    train_images: Count
    train_boxes: Count
    val_images: Count
    val_boxes: Count


class _Baseline(BaseModel):
    name: StrictStr
    layout: StrictStr
    memory_predicted_gib: Number


class _Cost(BaseModel):
    trials: Count
    train_s_low: Number
    train_s_high: Number
    wall_s_low: Number
    wall_s_high: Number


class _Check(BaseModel):
    text: StrictStr


class _Refusals(BaseModel):
    over_budget: Count = 0
    unequal: Count = 0
    repeated: Count = 0


class _Typical(BaseModel):
    layout: StrictStr
    cost: dict[StrictStr, Number]
    steps_per_epoch: Count


class _Time(BaseModel):
    limit_s: Number
    search_until_s: Number
    division: dict[StrictStr, Number]
    typical: _Typical


class _Winner(BaseModel):
    layout: StrictStr
    epochs: Count
    bundle: StrictStr
    done: StrictBool


Kinds = Mapping[str, TypeAdapter[Any]]  # what each attribute must be, by its name
_PLAIN_OR_NONE: TypeAdapter[Any] = TypeAdapter(Plain | None)
TRIAL: Kinds = {
    **dict.fromkeys(schema.TRIAL, TypeAdapter(Number | None)),  # unless it is named below
    **dict.fromkeys(_TEXTS, TypeAdapter(StrictStr | None)),
    **dict.fromkeys(("fail_reason", "infeasible_reason"), TypeAdapter(StrictStr)),
    **dict.fromkeys(_COUNTS, TypeAdapter(Count | None)),
    **dict.fromkeys(_PLAIN, _PLAIN_OR_NONE),
    "seed": TypeAdapter(StrictInt | None),
    "memory_parts_gib": TypeAdapter(dict[StrictStr, Number]),
    "map_per_class": TypeAdapter(dict[StrictStr, Number | None] | None),
    **dict.fromkeys(("losses", "val_losses"), TypeAdapter(dict[StrictStr, Number | None])),
}
STUDY: Kinds = {
    **dict.fromkeys(schema.STUDY, _PLAIN_OR_NONE),
    "nas_uuid": TypeAdapter(StrictStr),
    "nas_spec": TypeAdapter(_Request),
    "nas_data": TypeAdapter(_Facts),
    "nas_budget_gib": TypeAdapter(Number),
    "nas_baselines": TypeAdapter(list[_Baseline]),
    "nas_cost_predicted": TypeAdapter(_Cost),
    "nas_versions": TypeAdapter(dict[StrictStr, StrictStr]),
    "nas_git_commit": TypeAdapter(StrictStr | None),
    "nas_refusals": TypeAdapter(_Refusals),
    "nas_proxy_check": TypeAdapter(_Check),
    "nas_time": TypeAdapter(_Time),
    "nas_commands": TypeAdapter(dict[StrictStr, tuple[Number, Number]]),
    "nas_winner": TypeAdapter(_Winner),
}
SEARCH = ("nas_uuid", "nas_spec", "nas_data", "nas_budget_gib")  # that no search is without


def study_attributes(study: optuna.Study) -> dict[str, Any]:
    """User attributes of a study, without those that this program cannot have written. Where one of
    `SEARCH` is missing, there is none of them: the study is no search.

    Raises:
        StudyError: they are no JSON.
    """
    with odd_rows_as_study_error(study.study_name):
        known = readable(study.user_attrs, STUDY)
    if all(name in known for name in SEARCH):
        return known
    return {name: value for name, value in known.items() if name not in SEARCH}


def study_trials(study: optuna.Study) -> list[FrozenTrial]:
    """All trials of a study in the order of their numbers, without attributes that this program
    cannot have written.

    Raises:
        StudyError: a trial is none that Optuna has written.
    """
    with odd_rows_as_study_error(study.study_name):
        objectives = number_of_objectives(study)
        trials = study.get_trials(deepcopy=False)
        for position, trial in enumerate(trials):
            _check_form(trial, position, objectives)
    return [readable_trial(trial) for trial in trials]


def number_of_objectives(study: optuna.Study) -> int:
    """Count the objectives of a study.

    Raises:
        ValueError: it has none.
    """
    if not (objectives := len(study.directions)):
        raise ValueError("it has no objective")
    return objectives


def _check_form(trial: FrozenTrial, position: int, objectives: int) -> None:
    """Find out that a trial is one on which others can rely: it is found by its number, and what
    ended has its values.

    Raises:
        ValueError: it is not.
    """
    if trial.number != position:
        raise ValueError(f"trial {position} is missing")
    numbers = [*(trial.values or ()), *trial.constraints.values()]
    numbers += trial.intermediate_values.values()
    if not all(isinstance(each, (int, float)) for each in numbers):
        raise ValueError(f"trial {trial.number} has values that are no numbers")
    if not all(isinstance(step, int) for step in trial.intermediate_values):
        raise ValueError(f"trial {trial.number} has scores of steps that are no numbers")
    if trial.state == TrialState.COMPLETE and len(trial.values or ()) != objectives:
        raise ValueError(f"trial {trial.number} is complete without a value of each objective")


def readable_trial(trial: FrozenTrial) -> FrozenTrial:
    """The trial itself, or a copy of it without what cannot be read."""
    known = readable(trial.user_attrs, TRIAL)
    if len(known) == len(trial.user_attrs):
        return trial
    other = copy.copy(trial)
    other.user_attrs = known
    return other


def readable(attributes: Mapping[str, Any], kinds: Kinds) -> dict[str, Any]:
    """Leave out attributes that are not of their kind; unknown ones stay, if their names are
    text.
    """
    return {
        name: value
        for name, value in attributes.items()
        if isinstance(name, str) and (name not in kinds or _is_of(value, kinds[name]))
    }


def _is_of(value: Any, kind: TypeAdapter[Any]) -> bool:
    try:
        kind.validate_python(value)
    except PydanticError:
        return False
    return True
