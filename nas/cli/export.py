"""`nas export`, `nas-export`: the best backbone of a study as a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import options
from nas.cli.runner import new_app, print_json, run, say
from nas.errors import SpecError

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial


def export(
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    study: options.Study = None,
    storage: options.Storage = options.DEFAULT_STORAGE,
    trial: Annotated[
        int | None, typer.Option(help="Number of the trial; default: the best.")
    ] = None,
    pareto: Annotated[
        bool,
        typer.Option(
            "--pareto",
            help="Every trial of the Pareto front, each in a folder of its own below --out.",
        ),
    ] = False,
    no_onnx: options.NoOnnx = False,
    push_to: Annotated[
        str | None, typer.Option(help="Folder or URL (s3://, gs://, ...) for a copy of the bundle.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Write the best backbone of a study in forms that load elsewhere."""
    if pareto and (trial is not None or push_to):
        raise SpecError("--pareto excludes --trial and --push-to")
    from nas.study.leaderboard import find_front, find_trial, load_study
    from nas.study.storage import open_storage

    loaded = load_study(open_storage(storage, create=False), study)
    chosen = find_front(loaded) if pareto else [find_trial(loaded, trial)]
    rows = []
    for each in chosen:
        folder = out / f"trial-{each.number}" if pareto else out
        rows.append(_write(folder, loaded, each, push_to, onnx=not no_onnx, quiet=as_json))
    if as_json:
        print_json(rows if pareto else rows[0])


def _write(
    out: Path, study: Study, trial: FrozenTrial, push_to: str | None, *, onnx: bool, quiet: bool
) -> dict[str, Any]:
    """Write one bundle, and say so; what `--json` prints of it."""
    from nas.export.from_study import write_trial
    from nas.export.push import push, push_target
    from nas.study.leaderboard import trial_row
    from nas.utils.formatting import percent

    target = push_target(push_to) if push_to else None
    left_out = write_trial(out, study, trial, onnx=onnx)
    said = [*left_out] if onnx else []
    if target:
        push(out, target)
        said.append(f"{push_to}: a copy")
    row = trial_row(trial)
    said.append(
        f"{out}: {row.layout} of trial {row.number}, mAP {percent(row.value)} "
        f"(start with {out / 'README.md'})"
    )
    for line in [] if quiet else said:
        say(line)
    return {"out": str(out), "pushed_to": push_to, "left_out": left_out, **row.to_dict()}


def main() -> None:
    """Entry point of `nas-export`."""
    app = new_app()
    app.command()(export)
    run(app, "nas-export")
