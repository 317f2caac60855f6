"""`nas train` and `nas evaluate`: one candidate in full, and its metrics on a data set."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import options
from nas.cli.runner import print_json
from nas.cli.submit import checked_spec
from nas.utils.formatting import percent
from search_spaces.errors import UserError
from search_spaces.layout import Layout

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader

    from nas.config.recipe import Recipe
    from nas.config.spec import SearchSpec
    from nas.data.coco import CocoSplit
    from nas.export.description import Trained
    from nas.reports import CocoMetrics, DatasetSummary, EpochReport


@options.request_options(
    options.DATA,
    options.DETECTOR,
    options.RECIPE,
    options.EPOCHS,
    options.IMAGE_SIZE,
    options.BATCH,
    options.SEED,
)
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
    layout, spec = requested(what, flags)
    trained, left_out = train_bundle(layout, spec, out, onnx=not no_onnx, as_json=as_json)
    curves = _beside(out, ".curves")
    if as_json:
        print_json(
            {"out": str(out), "curves": str(curves), "layout": str(layout), **trained.figures}
        )
    else:
        for line in [] if no_onnx else left_out:
            print(line)
        print(
            f"{out}: {layout}, mAP {percent(trained.figures['map'])} (start with "
            f"{out / 'README.md'})"
        )
        print(f"{curves}: its curves and sample detections")


def train_bundle(
    layout: Layout,
    spec: SearchSpec,
    out: Path,
    *,
    onnx: bool,
    as_json: bool,
    fingerprint: str | None = None,
) -> tuple[Trained, list[str]]:
    """Train a candidate and write it as a bundle, its curves beside it.

    Args:
        layout, spec: what, and how.
        out: folder of the bundle; beside it are what an interrupted run goes on from, and the
            curves.
        onnx: see `write_bundle`.
        as_json: stdout is for machines.
        fingerprint: the data must have it.

    Returns:
        What was written, and what was left out.
    """
    from nas.export.bundle import check_target, write_bundle

    work, curves = _beside(out, ".training"), _beside(out, ".curves")
    check_target(out)
    if spec.recipe.weights:  # tried before the data are checked, which takes longer
        try_weights(layout, spec.recipe.weights, as_json)
    trained, val = _train(layout, spec, work, curves, fingerprint)
    from nas.artifacts.paths import WEIGHTS

    left_out = write_bundle(out, trained, work / WEIGHTS, onnx=onnx)
    _draw_samples(out, val, curves)
    _remove(work)
    return trained, left_out


def _beside(out: Path, suffix: str) -> Path:
    return out.with_name(out.name + suffix)


def evaluate(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    data: Annotated[Path, typer.Option(help="Folder with images and annotations in COCO form.")],
    split: Annotated[str, typer.Option(help="Split to score.")] = "val",
    draw: Annotated[
        Path | None,
        typer.Option(help="Folder for its images, ground truth left, detections right."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Print the COCO metrics of a bundle's detector on a data set with its categories."""
    metrics, fps, trained, images = score(bundle, data, split, draw)
    if as_json:
        print_json({**asdict(metrics), "fps": fps, "images": images})
        return
    from nas.cli.tables import metrics_table, print_table

    print_table(
        metrics_table(asdict(metrics), f"{trained.layout} on {split} of {data}, {fps:.1f} images/s")
    )


def score(
    bundle: Path, data: Path, split: str, draw: Path | None = None
) -> tuple[CocoMetrics, float, Trained, int]:
    """Metrics of a bundle on a split, images a second, what the bundle says of itself, and how many
    images there are; drawn into a folder where one is named.
    """
    from nas.data.annotation_files import find_split

    find_split(data, split)
    if not bundle.is_dir():
        raise UserError(f"bundle folder {str(bundle)!r} does not exist")
    import torch

    from nas.cli.progress import ImageProgress
    from nas.data.validation import usable_splits
    from nas.evaluation.coco import evaluate as evaluate_detector
    from nas.evaluation.visualization import write_drawings
    from nas.export.bundle import read_bundle
    from nas.utils.device import default_device
    from nas.utils.files import ensure_writable

    trained, detector = read_bundle(bundle)
    with ImageProgress() as progress:
        scored = usable_splits(data, (split,), skip_broken=False, progress=progress.on_image)[
            0
        ].split
    scored = scored if detector.masks else scored.without_masks()
    names = tuple(name for _, name in scored.categories)
    if names != trained.categories:
        raise UserError(
            f"--data must have the bundle's categories ({', '.join(trained.categories)}); it has "
            f"{', '.join(names)}"
        )
    if draw:
        ensure_writable(draw)
    device = torch.device(default_device())
    loader = _in_order(scored, trained.recipe, device)
    metrics, detections, fps = evaluate_detector(detector.to(device), loader, scored, device)
    if draw:
        write_drawings(draw, scored, detections)
    return metrics, fps, trained, len(scored.images)


def requested(what: str, flags: dict[str, Any]) -> tuple[Layout, SearchSpec]:
    """What to train, and how.

    Args:
        what: a layout, a bundle's folder, or a YAML file (see `_of_file`).
        flags: dotted keys, which count before those of the bundle or the file; to name a recipe
            sets a bundle's own aside.

    Raises:
        UserError: something in it cannot be.
    """
    if what.endswith((".yaml", ".yml")):
        layout, base = _of_file(Path(what))
    elif Path(what).is_dir():
        layout, base = _of_bundle(Path(what))
        if {"recipe", "recipe.name"} & set(
            flags
        ):  # it has all keys, and would leave nothing of the one that is named
            del base["recipe"]
    else:
        layout, base = Layout.parse(what), {}
    return layout, checked_spec(base, flags)


def _of_file(path: Path) -> tuple[Layout, dict[str, Any]]:
    """Layout of a file that has the keys of a request for a search, and `layout`: the one that is
    trained.
    """
    from nas.config.parsing import read_yaml
    from nas.errors import SpecError

    written = read_yaml(path)
    layout = written.pop("layout", None)
    if not isinstance(layout, str):
        raise SpecError(
            f"file {str(path)!r} must name what to train, for example layout: C2-C2-T12-T4; got "
            f"{layout!r}"
        )
    return Layout.parse(layout), written


def _of_bundle(folder: Path) -> tuple[Layout, dict[str, Any]]:
    """Layout of a bundle, and its detector, recipe and calibration as the base that flags
    change.
    """
    from nas.config.recipe import CUSTOM
    from nas.export.bundle import read_description

    trained = read_description(folder)
    sections = ("detector", "recipe", "calibration")
    base = {section: getattr(trained, section).model_dump(mode="json") for section in sections}
    base["recipe"]["name"] = CUSTOM
    return trained.layout, base


def try_weights(layout: Layout, weights: str, as_json: bool) -> None:
    """Say what a candidate will take of a file of weights; an error where that is nothing."""
    from nas.models.backbones import build_backbone
    from nas.models.weights import load_backbone_weights
    from nas.utils.paths import to_path

    taken = load_backbone_weights(build_backbone(layout), to_path(weights)).summary()
    if not as_json:
        print(f"weights: {taken}", file=sys.stderr)


def _train(
    layout: Layout, spec: SearchSpec, work: Path, curves: Path, fingerprint: str | None
) -> tuple[Trained, CocoSplit]:
    """The trained candidate and the validation split; its curves are there from the first epoch
    on.
    """
    from nas.artifacts.curves import write_curves
    from nas.artifacts.history import read_reports
    from nas.cli.progress import EpochProgress
    from nas.data.splits import BOXES_ONLY, adapt_to_data
    from nas.errors import DataError
    from nas.export.description import Trained
    from nas.profiling.flops import count_cost
    from nas.study.provenance import public_spec
    from nas.training.candidate import Candidate, train_candidate
    from nas.utils.device import default_device

    with EpochProgress(layout, spec.recipe.epochs) as progress:
        asked = spec.detector
        spec, splits, facts = adapt_to_data(spec, progress.on_image)
        if spec.detector != asked:
            progress.say(BOXES_ONLY)
        if fingerprint not in {None, facts.fingerprint}:
            raise DataError(
                f"--data has fingerprint {facts.fingerprint}, the bundle was trained on "
                f"{fingerprint}"
            )
        _prepare(curves, anew=not read_reports(work))
        candidate = Candidate(
            layout,
            spec.detector,
            spec.recipe,
            spec.calibration,
            facts.num_classes,
            spec.search.seed,
            work,
            device=default_device(),
            cache_bytes=spec.run.image_cache,
        )
        for report in train_candidate(candidate, *splits, on_step=progress.on_step):
            progress.on_report(report)
            write_curves(curves, read_reports(work), str(layout))
    cost = count_cost(layout, spec.detector, facts.num_classes, facts.batch_shape[2:])
    trained = Trained(
        layout,
        spec.detector,
        spec.recipe,
        spec.calibration,
        facts.categories,
        figures={"params": cost.params, "flops": cost.flops, **_figures(report)},
        origin=_origin(spec, facts, report),
        request=public_spec(spec),
    )
    return trained, splits.val


def _prepare(curves: Path, *, anew: bool) -> None:
    """Make the folder of the curves, without those of another run."""
    from nas.artifacts.curves import clear_curves
    from nas.utils.files import ensure_writable

    ensure_writable(curves)
    if anew:
        clear_curves(curves)


def _draw_samples(bundle: Path, val: CocoSplit, curves: Path) -> None:
    """Some validation images with what the bundle's detector finds on them."""
    import torch

    from nas.artifacts.paths import DETECTIONS
    from nas.evaluation.coco import detect
    from nas.evaluation.visualization import sample, write_drawings
    from nas.export.bundle import read_bundle
    from nas.utils.device import default_device
    from nas.utils.files import ensure_writable

    trained, detector = read_bundle(bundle)
    chosen, device = sample(val), torch.device(default_device())
    detections, _ = detect(
        detector.to(device), _in_order(chosen, trained.recipe, device), chosen, device
    )
    ensure_writable(curves / DETECTIONS)
    write_drawings(curves / DETECTIONS, chosen, detections)


def _in_order(split: CocoSplit, recipe: Recipe, device: torch.device) -> DataLoader:
    from nas.data.dataloader import loader_workers, make_loader
    from nas.data.samplers import EvalBatchSampler
    from nas.data.transforms import eval_resize_flip

    batches = EvalBatchSampler(split.images, recipe.micro_batch_size)
    return make_loader(split, eval_resize_flip(recipe), batches, loader_workers(recipe, device))


def _figures(report: EpochReport) -> dict[str, Any]:
    from nas.utils.formatting import gib

    metrics = report.metrics.precisions() | report.test_scores
    peak = report.memory_peak_bytes
    gpu_s = 0.0 if peak is None else report.elapsed_s
    rest = {
        "epochs": report.epoch,
        "train_s": report.train_s,
        "gpu_s": gpu_s,
        "fps": report.fps,
        "device": report.device,
    }
    return {**metrics, **rest, "memory_peak_gib": None if peak is None else gib(peak)}


def _origin(spec: SearchSpec, facts: DatasetSummary, report: EpochReport) -> dict[str, Any]:
    from nas.export.description import make_origin

    return make_origin(
        seed=spec.search.seed,
        data=Path(spec.data.root).resolve().name,
        data_fingerprint=facts.fingerprint,
        hardware=report.hardware,
        wall_s=round(report.elapsed_s, 1),
    )


def _remove(work: Path) -> None:
    import shutil

    shutil.rmtree(work, ignore_errors=True)
