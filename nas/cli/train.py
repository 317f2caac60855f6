"""`nas train` and `nas evaluate`: one candidate in full, and its metrics on a data set."""

from __future__ import annotations

from dataclasses import asdict
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


def evaluate(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    data: Annotated[
        str, typer.Option(help="Folder or zip file of a data set with its categories, or its URL.")
    ],
    split: Annotated[str, typer.Option(help="Split to score.")] = "val",
    draw: Annotated[
        Path | None,
        typer.Option(help="Folder for its images, ground truth left, detections right."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Print the COCO metrics of a bundle's detector on a data set with its categories."""
    from nas.api.requests import check_bundle
    from nas.data.split_source import find_split
    from nas.utils.paths import localize

    find_split(localize(data), split)
    check_bundle(bundle)
    from nas.api.evaluation import score_bundle
    from nas.cli.progress import ImageProgress

    with ImageProgress() as progress:
        score = score_bundle(bundle, data, split, progress.on_image, draw)
    if as_json:
        print_json({**asdict(score.metrics), "fps": score.fps, "images": score.images})
        return
    from nas.cli.tables import metrics_table, print_table

    title = f"{score.trained.layout} on {split} of {data}, {score.fps:.1f} images/s"
    print_table(metrics_table(asdict(score.metrics), title))
