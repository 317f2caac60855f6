"""A trial of a study, as the bundle that is written of it describes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from nas.config.recipe import Recipe
from nas.config.sections import CalibrationSpec, DetectorSpec
from nas.errors import BundleError
from nas.export.bundle import write_bundle
from nas.export.description import Trained, make_origin
from nas.study.attributes import study_attributes, study_trials
from nas.study.schema import EXPORTED
from nas.study.significance import against_baselines, board_rows
from nas.utils.formatting import interval_text, percent, signed
from nas.utils.paths import to_path
from search_spaces.layout import Layout

_NEEDED = ("layout", "checkpoint", "seed", "device")


def write_trial(
    out: Path, study: optuna.Study, trial: FrozenTrial, *, onnx: bool = True
) -> list[str]:
    """Write the candidate that a completed trial trained as a bundle.

    Args:
        out, onnx: as `write_bundle` takes them.
        study, trial: see `trained_in_study`.

    Returns:
        Sentences on the files that were left out, and why.

    Raises:
        BundleError: its weights are gone, the folder holds other files, or the trial has not what
            every completed one has.
    """
    if missing := [name for name in _NEEDED if trial.user_attrs.get(name) is None]:
        raise BundleError(
            f"trial {trial.number} of study {study.study_name!r} has no {', '.join(missing)}: "
            "no search has completed it"
        )
    weights = to_path(trial.user_attrs["checkpoint"])
    return write_bundle(out, trained_in_study(study, trial), weights, onnx=onnx)


def trained_in_study(study: optuna.Study, trial: FrozenTrial) -> Trained:
    """Describe the candidate that a completed trial trained.

    Args:
        study: one of this program, with the attributes of `nas.study.schema`.
        trial: one of its completed trials.

    Returns:
        Figures are the trial's attributes of `EXPORTED`, in that order, and `_compared` after them;
        the request is the study's.
    """
    study_attrs, attributes = study_attributes(study), trial.user_attrs
    request = study_attrs["nas_spec"]
    return Trained(
        layout=Layout.parse(attributes["layout"]),
        detector=DetectorSpec.model_validate(request["detector"]),
        recipe=Recipe.model_validate(request["recipe"]),
        calibration=CalibrationSpec.model_validate(request["calibration"]),
        categories=tuple(study_attrs["nas_data"]["categories"]),
        figures={name: attributes[name] for name in EXPORTED if name in attributes}
        | _compared(study, trial),
        origin=_origin(study, trial),
        request=request,
    )


def _compared(study: optuna.Study, trial: FrozenTrial) -> dict[str, str]:
    """What other seeds say of a trial and, of the best candidate, how it stands against the
    baselines; sentences with points of mAP.
    """
    trials = study_trials(study)
    board = board_rows(trials)
    sentences: dict[str, str] = {}
    row = next((row for row in board if row.number == trial.number), None)
    if row and row.replicates:
        sentences["map_again"] = (
            f"{percent(row.map_again)} %, mean with other seeds, trainings: {row.replicates}"
        )
    if row and row is board[0]:
        for baseline in against_baselines(study_attributes(study), trials):
            interval = interval_text(baseline.difference_low, baseline.difference_high)
            sentences[f"against {baseline.name}"] = (
                f"{signed(baseline.difference)} ({interval}), {baseline.layout}: {baseline.verdict}"
            )
    return sentences


def _origin(study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
    study_attrs, completed = study_attributes(study), trial.datetime_complete
    return make_origin(
        study=study.study_name,
        study_uuid=study_attrs["nas_uuid"],
        trial=trial.number,
        seed=trial.user_attrs["seed"],
        data=Path(study_attrs["nas_spec"]["data"]["root"]).name,
        data_fingerprint=study_attrs["nas_data"]["fingerprint"],
        hardware=trial.user_attrs.get("hardware") or {"device": trial.user_attrs["device"]},
        wall_s=_wall_s(trial),
        budget_gib=study_attrs["nas_budget_gib"],
        versions=study_attrs.get("nas_versions", {}),
        git_commit=study_attrs.get("nas_git_commit"),
        finished=completed.isoformat(timespec="seconds") if completed else None,
    )


def _wall_s(trial: FrozenTrial) -> float | None:
    """Seconds from a trial's start to its end; None where the clock was set back in between."""
    seconds = trial.duration.total_seconds() if trial.duration else -1.0
    return round(seconds, 1) if seconds >= 0 else None
