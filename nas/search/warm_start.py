"""Results of earlier studies that count as known in a new one: never trained again, and the sampler
learns from them.
"""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from nas.config.choices import BUILTIN_PRIOR
from nas.config.spec import SearchSpec
from nas.errors import StudyError, one_of
from nas.search.layout_filter import LayoutFilter
from nas.search.objectives import objective_values
from nas.search.samplers import distributions
from nas.study.attributes import study_attributes, study_trials
from nas.study.leaderboard import search_uuid
from nas.study.optuna_internals import Storage, odd_rows_as_study_error, study_ids
from nas.study.provenance import differences
from nas.study.roles import TAKEN_OVER, role_of
from nas.study.storage import open_storage
from nas.study.trials import TrialTable
from search_spaces.errors import UserError
from search_spaces.layout import Layout

SAME = ("detector", "recipe", "calibration")  # with the data, what a score depends on


def earlier_studies(
    spec: SearchSpec, key: str, storage: InMemoryStorage | None = None
) -> list[optuna.Study]:
    """Load earlier searches that a request names, all in its database.

    Args:
        spec: the request.
        key: which names: `warm_start` or `prior`; the built-in prior is no study.
        storage: memory, in place of the database that the request names.

    Raises:
        StudyError: there is none of a name, or it is no search.
    """
    names = [name for name in getattr(spec.search, key) if (key, name) != ("prior", BUILTIN_PRIOR)]
    if not names:
        return []
    opened = storage or open_storage(spec.storage, create=False)
    return [_earlier(opened, name, spec.study, key) for name in names]


def _earlier(storage: Storage, name: str, into: str, key: str) -> optuna.Study:
    others = [other for other in study_ids(storage) if other != into]
    if name not in others:
        choices = [*others, BUILTIN_PRIOR] if key == "prior" else others
        raise StudyError(
            one_of(f"search.{key}", name, choices)
            if choices
            else f"the database has no other study; got {name!r}"
        )
    with odd_rows_as_study_error(name):
        earlier = optuna.load_study(study_name=name, storage=storage)
        search_uuid(earlier)
    return earlier


def take_over(
    table: TrialTable,
    earlier: optuna.Study,
    spec: SearchSpec,
    fingerprint: str,
    layout_filter: LayoutFilter,
) -> str:
    """Add to a study the completed trials of an earlier one whose layouts its space has and its
    budget allows; each once.

    Args:
        table: the trials of the study that takes.
        earlier: the study that gives.
        spec, fingerprint: request and data of the study that takes.
        layout_filter: says which layouts the study that takes may train.

    Returns:
        What was done, or why nothing was: scores of another recipe or other data are not
        comparable.
    """
    changed = differences(spec, fingerprint, study_attributes(earlier), SAME)
    if changed:
        return (
            f"warning: nothing taken over from {earlier.study_name!r}, its scores are not "
            f"comparable: {'; '.join(changed)}"
        )
    taken = left = 0
    for trial in _trained(earlier):
        layout = Layout.parse(trial.user_attrs["layout"])
        if layout.layout_id in table.trained_layout_ids(spec.run.retries):
            continue
        parameters = _parameters(layout, layout_filter)
        if parameters is None:
            left += 1
            continue
        try:
            copied = _copy(trial, earlier, parameters, layout_filter, spec.search.objectives)
        except (KeyError, TypeError):  # an objective that was not measured there
            left += 1
            continue
        table.study.add_trial(copied)
        table.read()
        taken += 1
    return (
        f"taken over from {earlier.study_name!r}: {taken} results; {left} others are not in this "
        "space or budget"
    )


def _parameters(layout: Layout, layout_filter: LayoutFilter) -> dict[str, object] | None:
    """Parameters of a layout in the space of the study that takes; None where it has no such
    layout, or would train another one in its place.
    """
    try:
        parameters = layout_filter.space.encode(layout)
    except UserError:
        return None
    return parameters if layout_filter.resolve(layout) == layout else None


def _copy(
    trial: FrozenTrial,
    earlier: optuna.Study,
    parameters: dict[str, object],
    layout_filter: LayoutFilter,
    objectives: Sequence[str],
) -> FrozenTrial:
    origin = f"{earlier.study_name} trial {trial.number}"
    layout = Layout.parse(trial.user_attrs["layout"])
    attributes = {**trial.user_attrs, **layout_filter.budget.caps.figures(layout)}
    return optuna.trial.create_trial(
        params=parameters,
        distributions=distributions(layout_filter.space),
        values=objective_values(objectives, attributes),
        user_attrs={**attributes, "role": TAKEN_OVER, "origin": origin},
        intermediate_values=trial.intermediate_values if len(objectives) == 1 else {},
        constraints={"taken_over": 0.0},  # within the budget: the filter has just said so
    )


def _trained(study: optuna.Study) -> list[FrozenTrial]:
    """Completed there with the seed of its search, and not taken over in its turn: the origin is
    asked, nobody else.

    Raises:
        StudyError: the study holds what no search has written.
    """
    return [
        trial
        for trial in study_trials(study)
        if trial.state == TrialState.COMPLETE
        and trial.user_attrs.keys() >= {"layout", "map"}
        and role_of(trial) != TAKEN_OVER
        and not trial.user_attrs.get("replicate")
    ]
