"""`nas pretrain`: weights for a layout that nobody has published, by image classification."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import options
from nas.cli.runner import INTERRUPTED, print_json
from nas.cli.train import try_weights
from nas.utils.formatting import percent
from search_spaces.errors import UserError
from search_spaces.layout import Layout

if TYPE_CHECKING:
    from nas.cli.progress import EpochProgress
    from nas.config.pretraining import PretrainingSpec
    from nas.data.image_folder import LabelledImages
    from nas.reports import PretrainingReport
    from nas.training.pretraining import Pretraining
    from nas.utils.distributed import World

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
    asked = Layout.parse(layout)
    _check_target(out)
    from nas.config.pretraining import load_pretraining
    from nas.errors import CandidateError

    spec = load_pretraining(
        {"data": data} | flags, int(os.environ.get("WORLD_SIZE", "1"))
    )  # torchrun's
    work = out.with_name(out.name + ".training")
    try:
        report = _pretrain(asked, spec, out, work, as_json)
    except CandidateError as error:
        raise UserError(
            f"{error}; to begin anew with other settings remove {str(work)!r}"
        ) from None
    except KeyboardInterrupt:
        print("Stopped. The same command goes on where this one stopped.", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    if report:
        _show(asked, out, report, as_json)


def _check_target(out: Path) -> None:
    if out.suffix != SUFFIX:
        raise UserError(f"--out must be a file that ends in {SUFFIX}; got {str(out)!r}")
    if out.exists():
        raise UserError(f"--out {str(out)!r} exists already: choose a new file")


def _pretrain(
    layout: Layout, spec: PretrainingSpec, out: Path, work: Path, as_json: bool
) -> PretrainingReport | None:
    """The last report; None for all of several processes but the first."""
    from nas.data.image_folder import SPLITS, find_classes, fingerprint, read_split
    from nas.utils.files import check_file, ensure_writable
    from nas.utils.paths import localize

    root = localize(spec.data)
    classes = find_classes(root)
    if spec.recipe.weights:
        check_file("recipe.weights", spec.recipe.weights)
        try_weights(layout, spec.recipe.weights, as_json)
    from nas.cli.progress import EpochProgress
    from nas.training.launch import started_by_torchrun
    from nas.training.pretraining import Pretraining
    from nas.utils.device import default_device

    splits = [read_split(root, name, classes) for name in SPLITS]
    ensure_writable(work)
    world, device = started_by_torchrun(default_device())
    with EpochProgress(layout, spec.recipe.epochs) as progress:
        _check(splits, world, work, progress)
        asked = Pretraining(
            layout,
            spec.recipe,
            classes,
            fingerprint(classes, splits),
            spec.seed,
            out,
            work,
            device,
            spec.checkpoint_s,
            _origin(spec, splits),
        )
        report = _train(asked, splits, world, progress)
    if world.first:
        shutil.rmtree(work, ignore_errors=True)
    return report if world.first else None


def _check(splits: list[LabelledImages], world: World, work: Path, progress: EpochProgress) -> None:
    """Look into the images, of several processes each into its share, unless that was done before
    the checkpoint was written; a folder for nothing is not left behind.
    """
    from nas.artifacts.paths import CHECKPOINT
    from nas.data.image_folder import check_images

    if (work / CHECKPOINT).exists():
        return
    try:
        for images in splits:
            check_images(
                images.share(world.rank, world.size), progress.on_image if world.first else None
            )
    finally:
        with suppress(OSError):  # not empty
            work.rmdir()


def _train(
    asked: Pretraining, splits: list[LabelledImages], world: World, progress: EpochProgress
) -> PretrainingReport:
    """The last report; the curve is there from the first epoch on."""
    import torch.distributed as dist

    from nas.artifacts.history import read_reports_of, write_csv
    from nas.reports import PretrainingReport
    from nas.training.pretraining import pretrain as train_epochs

    for report in train_epochs(asked, *splits, on_step=progress.on_step if world.first else None):
        if world.first:
            progress.on_report(report)
            write_csv(_curve(asked.out), read_reports_of(PretrainingReport, asked.folder))
    if world.size > 1:
        dist.destroy_process_group()
    return report


def _curve(out: Path) -> Path:
    return out.with_suffix(".curves.csv")


def _origin(spec: PretrainingSpec, splits: list[LabelledImages]) -> dict[str, Any]:
    from nas.export.description import make_origin

    images = {f"{split.folder.name}_images": len(split.files) for split in splits}
    return make_origin(data=Path(spec.data).resolve().name, **images)


def _show(layout: Layout, out: Path, report: PretrainingReport, as_json: bool) -> None:
    if as_json:
        facts = {"epochs": report.epoch, "train_s": report.train_s, "device": report.device}
        print_json(
            {
                "out": str(out),
                "curves": str(_curve(out)),
                "layout": str(layout),
                **asdict(report.metrics),
                **facts,
            }
        )
        return
    print(
        f"{out}: {layout}, top-1 {percent(report.metrics.top1)}, top-5 "
        f"{percent(report.metrics.top5)}"
    )
    print(f"fine-tune it: nas train {layout} --set recipe.weights={out} ...")
