"""`nas export`, `nas-export`: the best backbone of a study as a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import options
from nas.cli.runner import new_app, print_json, run

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from nas.export.description import Trained


def export(
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    study: options.Study = None,
    storage: options.Storage = options.DEFAULT_STORAGE,
    trial: Annotated[
        int | None, typer.Option(help="Number of the trial; default: the best.")
    ] = None,
    no_onnx: options.NoOnnx = False,
    push_to: Annotated[
        str | None, typer.Option(help="Folder or URL (s3://, gs://, ...) for a copy of the bundle.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Write the best backbone of a study in forms that load elsewhere."""
    from nas.study.leaderboard import find_trial, load_study, trial_row
    from nas.study.storage import open_storage
    from nas.utils.paths import to_path

    loaded = load_study(open_storage(storage, create=False), study)
    chosen = find_trial(loaded, trial)
    from nas.export.bundle import write_bundle
    from nas.export.push import push, push_target

    target = push_target(push_to) if push_to else None
    left_out = write_bundle(
        out, _trained(loaded, chosen), to_path(chosen.user_attrs["checkpoint"]), onnx=not no_onnx
    )
    if target:
        push(out, target)
    row = trial_row(chosen)
    if as_json:
        print_json({"out": str(out), "pushed_to": push_to, "left_out": left_out, **row})
    else:
        for line in [] if no_onnx else left_out:
            print(line)
        if target:
            print(f"{push_to}: a copy")
        print(
            f"{out}: {row['layout']} of trial {row['number']}, mAP {100 * row['value']:.1f} "
            f"(start with {out / 'README.md'})"
        )


def _trained(study: optuna.Study, trial: FrozenTrial) -> Trained:
    from nas.config.recipe import Recipe
    from nas.config.spec import CalibrationSpec, DetectorSpec
    from nas.export.description import Trained
    from nas.study.schema import EXPORTED
    from search_spaces.layout import Layout

    known, attributes = study.user_attrs, trial.user_attrs
    spec = known["nas_spec"]
    return Trained(
        layout=Layout.parse(attributes["layout"]),
        detector=DetectorSpec.model_validate(spec["detector"]),
        recipe=Recipe.model_validate(spec["recipe"]),
        calibration=CalibrationSpec.model_validate(spec["calibration"]),
        categories=tuple(known["nas_data"]["categories"]),
        figures={name: attributes[name] for name in EXPORTED if name in attributes}
        | _compared(study, trial),
        origin=_origin(study, trial),
        request=spec,
    )


def _compared(study: optuna.Study, trial: FrozenTrial) -> dict[str, str]:
    """What other seeds say of it and, of the best candidate, how it stands against the baselines;
    points of mAP.
    """
    from nas.study.significance import against_baselines, board_rows
    from nas.utils.formatting import interval_text, percent, signed

    trials = study.get_trials(deepcopy=False)
    board = board_rows(trials)
    said: dict[str, str] = {}
    row = next((row for row in board if row["number"] == trial.number), None)
    if row and row["replicates"]:
        said["map_again"] = (
            f"{percent(row['map_again'])} %, mean with other seeds, trainings: {row['replicates']}"
        )
    if board and board[0]["number"] == trial.number:
        for beside in against_baselines(study.user_attrs, trials):
            interval = interval_text(beside["difference_low"], beside["difference_high"])
            words = (
                f"{signed(beside['difference'])} ({interval}), {beside['layout']}: "
                f"{beside['verdict']}"
            )
            said[f"against {beside['name']}"] = words
    return said


def _origin(study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
    known = study.user_attrs
    return {
        "study": study.study_name,
        "study_uuid": known["nas_uuid"],
        "trial": trial.number,
        "seed": trial.user_attrs["seed"],
        "data": Path(known["nas_spec"]["data"]["root"]).name,
        "data_fingerprint": known["nas_data"]["fingerprint"],
        "hardware": trial.user_attrs.get("hardware") or {"device": trial.user_attrs["device"]},
        "wall_s": round(trial.duration.total_seconds(), 1) if trial.duration else None,
        "budget_gib": known["nas_budget_gib"],
        "versions": known["nas_versions"],
        "git_commit": known["nas_git_commit"],
        "finished": trial.datetime_complete.isoformat(timespec="seconds")
        if trial.datetime_complete
        else None,
    }


def main() -> None:
    """Entry point of `nas-export`."""
    app = new_app()
    app.command()(export)
    run(app, "nas-export")
