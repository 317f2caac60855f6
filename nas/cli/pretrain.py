"""`nas pretrain`: weights for a layout that nobody has published, by image classification."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import GOES_ON, options
from nas.cli.runner import Stopped, print_json, say
from nas.utils.formatting import percent
from nas.utils.shell import command_line, setting
from search_spaces.errors import UserError
from search_spaces.layout import Layout

if TYPE_CHECKING:
    from nas.reports import PretrainingReport

SUFFIX = ".safetensors"


RECIPE_FLAGS = (
    options.RequestFlag(
        "recipe",
        Annotated[str | None, typer.Option(help="swin (default), resnet, or a YAML file.")],
        "recipe.name",
    ),
    options.EPOCHS,
    options.RequestFlag(
        "image_size",
        Annotated[int | None, typer.Option(help="Side of the square crops, pixels.")],
        "recipe.image_size",
    ),
    options.RequestFlag(
        "batch",
        Annotated[
            int | None, typer.Option(help="Images of one training step; the rate follows it.")
        ],
        "recipe.batch",
    ),
    options.RequestFlag(
        "lr",
        Annotated[float | None, typer.Option(help="Learning rate for the whole batch.")],
        "recipe.lr",
    ),
    options.RequestFlag("seed", options.SEED.annotation, "seed"),
)


@options.request_options(*RECIPE_FLAGS)
def pretrain(
    layout: Annotated[str, typer.Argument(metavar="LAYOUT", help="A layout, C2-C2-T12-T4.")],
    data: Annotated[
        str, typer.Option(help="Folder with train/CLASS/*.jpg and val/CLASS/*.jpg, or its URL.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="File of weights, *.safetensors; the same command goes on where it stopped."
        ),
    ],
    *,
    flags: dict[str, Any],
    as_json: options.Json = False,
) -> None:
    """Pre-train a layout by image classification; nas train fine-tunes its weights
    (recipe.weights).

    With torchrun --no-python it runs on several GPUs.
    """
    parsed = Layout.parse(layout)
    _check_target(out)
    from nas.config.pretraining import load_pretraining
    from nas.errors import CandidateError

    processes = int(os.environ.get("WORLD_SIZE", "1"))  # torchrun's
    spec = load_pretraining({"data": data} | flags, processes)
    from nas.api.pretraining import pretrain_weights, work_folder
    from nas.cli.progress import EpochProgress

    try:
        with EpochProgress(quiet=as_json) as progress:
            report = pretrain_weights(parsed, spec, out, progress)
    except CandidateError as error:
        raise UserError(
            f"{error}; to begin anew with other settings remove {str(work_folder(out))!r}"
        ) from None
    except KeyboardInterrupt:
        raise Stopped(GOES_ON) from None
    if report:
        _show(parsed, out, report, as_json)


def _check_target(out: Path) -> None:
    if out.suffix != SUFFIX:
        raise UserError(f"--out must be a file that ends in {SUFFIX}; got {str(out)!r}")
    if out.exists():
        raise UserError(f"--out {str(out)!r} exists already: choose a new file")


def _show(layout: Layout, out: Path, report: PretrainingReport, as_json: bool) -> None:
    from nas.api.pretraining import curve_file

    if as_json:
        facts = {"epochs": report.epoch, "train_s": report.train_s, "device": report.device}
        print_json(
            {
                "out": str(out),
                "curves": str(curve_file(out)),
                "layout": str(layout),
                **asdict(report.metrics),
                **facts,
            }
        )
        return
    say(
        f"{out}: {layout}, top-1 {percent(report.metrics.top1)}, top-5 "
        f"{percent(report.metrics.top5)}"
    )
    weights = setting("recipe.weights", str(out))
    say(f"fine-tune it: {command_line('nas', 'train', layout, '--set', weights)} ...")
