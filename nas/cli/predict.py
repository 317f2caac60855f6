"""`nas predict`: the objects in images."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli import options
from nas.cli.runner import print_json, say

if TYPE_CHECKING:
    from nas.data.image_io import BrokenImage
    from nas.evaluation.detections import ImageDetections


Bundle = Annotated[Path, typer.Argument(help="Folder of a bundle.")]
Images = Annotated[
    list[str],
    typer.Argument(metavar="IMAGES...", help="Files, folders, patterns ('scans/*.png') or URLs."),
]
Out = Annotated[
    Path | None,
    typer.Option(help="COCO results (.json), a table (.csv), or a folder for YOLO's form."),
]
Draw = Annotated[Path | None, typer.Option(help="Folder for the images with what was found.")]
Score = Annotated[float, typer.Option(min=0, max=1, help="Leave out what has a lower score.")]
Tile = Annotated[
    int | None, typer.Option(min=32, help="Look at larger images in tiles of so many pixels.")
]
Batch = Annotated[int, typer.Option(min=1, max=8, help="Images at a time, of similar shape.")]
WhiteLevel = Annotated[
    int | None,
    typer.Option(min=1, help="Value that is white in images of more than 8 bits: 4095."),
]
Onnx = Annotated[
    bool, typer.Option("--onnx", help="Run the bundle's ONNX file instead of PyTorch.")
]


def predict(
    bundle: Bundle,
    images: Images,
    out: Out = None,
    draw: Draw = None,
    score: Score = 0.3,
    tile: Tile = None,
    batch: Batch = 1,
    white_level: WhiteLevel = None,
    onnx: Onnx = False,
    as_json: options.Json = False,
) -> None:
    """Find objects in images with the detector of a bundle."""
    from nas.api.requests import check_bundle
    from nas.data.image_paths import image_paths
    from nas.evaluation.detections import check_target, coco_content, write_detections

    if out:
        check_target(out)
    check_bundle(bundle)
    paths, started = image_paths(images), time.perf_counter()
    from nas.api.prediction import Predictor, predict_files

    predictor = Predictor(bundle, onnx=onnx, tile=tile, white_level=white_level)
    found = list(_sound(predict_files(predictor, paths, batch), score, quiet=as_json))
    elapsed_s, broken = time.perf_counter() - started, len(paths) - len(found)
    if out:
        write_detections(out, found)
    if draw:
        from nas.evaluation.visualization import write_pictures

        write_pictures(draw, found, white_level)
    if as_json:
        print_json(coco_content(found))
    else:
        say(_total(found, broken, elapsed_s))
    if broken:
        raise typer.Exit(1)


def _sound(
    outcomes: Iterable[ImageDetections | BrokenImage], score: float, *, quiet: bool
) -> Iterator[ImageDetections]:
    """What was found, each said; what cannot be read is named on stderr."""
    from nas.data.image_io import BrokenImage

    for each in outcomes:
        if isinstance(each, BrokenImage):
            say(f"left out: {each}", file=sys.stderr)
            continue
        found = each.above(score)
        if not quiet:
            say(f"{found.name}: {found.summary()}", flush=True)
        yield found


def _total(found: list[ImageDetections], broken: int, elapsed_s: float) -> str:
    speed = len(found) / max(elapsed_s, 1e-9)
    left_out = f", {broken} left out" if broken else ""
    return f"{len(found)} images, {sum(map(len, found))} objects, {speed:.1f} images/s{left_out}"
