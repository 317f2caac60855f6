"""`nas evaluate`: the metrics of a bundle's detector on a data set, and what is wrong with it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import options
from nas.cli.runner import print_json

if TYPE_CHECKING:
    from nas.evaluation.confusion import ConfusionMatrix
    from nas.evaluation.error_types import ErrorTypes
    from nas.reports import CocoMetrics


Bundle = Annotated[Path, typer.Argument(help="Folder of a bundle.")]
Data = Annotated[
    str, typer.Option(help="Folder or zip file of a data set with its categories, or its URL.")
]
Split = Annotated[str, typer.Option(help="Split to score.")]
Out = Annotated[Path | None, typer.Option(help="File for the detections as COCO results (.json).")]
Draw = Annotated[
    Path | None, typer.Option(help="Folder for its images, ground truth left, detections right.")
]
Confusion = Annotated[
    bool, typer.Option("--confusion", help="Also count what each class is found as.")
]
Errors = Annotated[bool, typer.Option("--errors", help="Also sort errors by the types of TIDE.")]
Iou = Annotated[
    float, typer.Option(help="IoU from which a detection is of an object, for these two.")
]
Score = Annotated[float, typer.Option(help="Score from which a detection counts, for --confusion.")]


def evaluate(
    bundle: Bundle,
    data: Data,
    split: Split = "val",
    out: Out = None,
    draw: Draw = None,
    confusion: Confusion = False,
    errors: Errors = False,
    iou: Iou = 0.5,
    score: Score = 0.3,
    as_json: options.Json = False,
) -> None:
    """Print the COCO metrics of a bundle's detector on a data set with its categories."""
    from nas.api.requests import check_bundle
    from nas.data.split_source import find_split
    from nas.utils.paths import localize

    _check(out, iou, score)
    find_split(localize(data), split)
    check_bundle(bundle)
    from nas.api.evaluation import score_bundle
    from nas.cli.progress import ImageProgress

    with ImageProgress() as progress:
        scored = score_bundle(bundle, data, split, progress.on_image, draw)
    if out:
        scored.write(out)
    matrix = scored.confusion(iou, score) if confusion else None
    types = scored.errors(iou) if errors else None
    if as_json:
        more: dict[str, Any] = {"confusion": matrix, "errors": types}
        said = {name: each.to_dict() for name, each in more.items() if each}
        print_json({**asdict(scored.metrics), "fps": scored.fps, "images": scored.images, **said})
        return
    title = f"{scored.trained.layout} on {split} of {data}, {scored.fps:.1f} images/s"
    _print(scored.metrics, title, matrix, types)


def _check(out: Path | None, iou: float, score: float) -> None:
    """What would be wrong after a long evaluation is said before it."""
    from nas.evaluation.detections import check_results
    from nas.evaluation.thresholds import check_iou, check_score

    check_iou(iou)
    check_score(score)
    if out:
        check_results(out)


def _print(
    metrics: CocoMetrics, title: str, matrix: ConfusionMatrix | None, types: ErrorTypes | None
) -> None:
    from nas.cli.evaluation_tables import confusion_table, errors_table
    from nas.cli.tables import metrics_table, print_table

    print_table(metrics_table(asdict(metrics), title))
    if matrix:
        print_table(confusion_table(matrix))
    if types:
        print_table(errors_table(types))
