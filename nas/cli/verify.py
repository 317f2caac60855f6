"""`nas verify` and `nas reproduce`: whether a bundle is what was exported, and whether it can be
trained again.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli import options
from nas.cli.runner import print_json, say

if TYPE_CHECKING:
    from nas.api.reproduction import Reproduction


def verify(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    data: Annotated[
        str | None,
        typer.Option(help="Score it on the validation images there, and compare the mAP."),
    ] = None,
    run_code: Annotated[
        bool,
        typer.Option(
            "--run-code", help="Also run its Python files, which can do whatever you can."
        ),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Check a bundle: every byte, that everything loads, that all forms are the same network.

    No code of it is run. Hashes prove that it is what was exported, not who exported it.
    """
    from nas.api.requests import check_bundle

    check_bundle(bundle)
    from nas.api.reproduction import verify_bundle
    from nas.cli.progress import ImageProgress

    with ImageProgress() as progress:
        trained, checks = verify_bundle(bundle, data, progress.on_image, run_code=run_code)
    if as_json:
        rows = [
            {"name": check.name, "passed": check.passed, "said": check.detail} for check in checks
        ]
        print_json({"bundle": str(bundle), "layout": str(trained.layout), "checks": rows})
        return
    for check in checks:
        say(f"{'ok' if check.passed else 'skipped':8}{check.name:22}{check.detail}")


def reproduce(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    data: Annotated[str, typer.Option(help="The data set it was trained on, a folder or a URL.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the new bundle; default: none is kept.")
    ] = None,
    other_data: Annotated[
        bool, typer.Option("--other-data", help="Go on where the data set is not the bundle's.")
    ] = False,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Largest difference of the mAP, a fraction; default: 0 on the same CPU and "
            "versions, else 0.01."
        ),
    ] = None,
    no_onnx: options.NoOnnx = False,
    as_json: options.Json = False,
) -> None:
    """Train a bundle's candidate again, by its recipe and seed, and compare the mAP: exit code 1
    where it differs.
    """
    from nas.api.requests import check_bundle

    check_bundle(bundle)
    from nas.api.reproduction import reproduce_bundle
    from nas.cli.progress import EpochProgress

    with EpochProgress(quiet=as_json) as progress:
        again = reproduce_bundle(
            bundle,
            data,
            out,
            progress,
            other_data=other_data,
            tolerance=tolerance,
            onnx=not no_onnx,
        )
    if as_json:
        print_json({"bundle": str(bundle), **again.to_dict(), "out": str(out) if out else None})
    else:
        _print(again)
    if not again.same:
        raise typer.Exit(1)


def _print(again: Reproduction) -> None:
    for line in again.differing:
        say(line)
    scores = f"mAP {100 * again.map:.4f}, before {100 * again.map_before:.4f}"
    if again.map == again.map_before:
        say(f"{again.layout}: {scores}, equal to the digit")
        return
    verdict = "within" if again.same else "not within"
    say(f"{again.layout}: {scores}, {verdict} the tolerance of {100 * again.tolerance:g}")
