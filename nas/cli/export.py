"""`nas export`, `nas-export`: the best backbone of a study as a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli import options
from nas.cli.runner import new_app, print_json, run


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
    from nas.utils.formatting import percent
    from nas.utils.paths import to_path

    loaded = load_study(open_storage(storage, create=False), study)
    chosen = find_trial(loaded, trial)
    from nas.export.bundle import write_bundle
    from nas.export.from_study import trained_in_study
    from nas.export.push import push, push_target

    target = push_target(push_to) if push_to else None
    left_out = write_bundle(
        out,
        trained_in_study(loaded, chosen),
        to_path(chosen.user_attrs["checkpoint"]),
        onnx=not no_onnx,
    )
    if target:
        push(out, target)
    row = trial_row(chosen)
    if as_json:
        print_json({"out": str(out), "pushed_to": push_to, "left_out": left_out, **row.to_dict()})
    else:
        for line in [] if no_onnx else left_out:
            print(line)
        if target:
            print(f"{push_to}: a copy")
        print(
            f"{out}: {row.layout} of trial {row.number}, mAP {percent(row.value)} "
            f"(start with {out / 'README.md'})"
        )


def main() -> None:
    """Entry point of `nas-export`."""
    app = new_app()
    app.command()(export)
    run(app, "nas-export")
