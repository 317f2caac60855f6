"""`nas train`: one candidate in full."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nas.cli import options
from nas.cli.runner import print_json, say
from nas.utils.formatting import percent


@options.request_options(options.DATA, *options.TRAINING, options.SEED)
def train(
    what: Annotated[
        str,
        typer.Argument(
            metavar="LAYOUT|BUNDLE|RUN.yaml",
            help="A layout, C2-C2-T12-T4, a bundle, or a file with a layout.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of the bundle; the same command goes on where it stopped.")
    ],
    *,
    flags: dict[str, Any],
    no_onnx: options.NoOnnx = False,
    as_json: options.Json = False,
) -> None:
    """Train one candidate, from scratch or from recipe.weights, and write it as a bundle."""
    from nas.api.requests import training_request

    layout, spec = training_request(what, flags)
    from nas.api.training import curves_folder, train_bundle
    from nas.cli.progress import EpochProgress

    with EpochProgress(quiet=as_json) as progress:
        trained, left_out = train_bundle(layout, spec, out, progress, onnx=not no_onnx)
    curves = curves_folder(out)
    if as_json:
        print_json(
            {"out": str(out), "curves": str(curves), "layout": str(layout), **trained.figures}
        )
        return
    for line in [] if no_onnx else left_out:
        say(line)
    say(f"{out}: {layout}, mAP {percent(trained.figures['map'])} (start with {out / 'README.md'})")
    say(f"{curves}: its curves and sample detections")
