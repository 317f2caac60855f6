"""Weights for a layout that nobody has published, by image classification."""

from __future__ import annotations

from pathlib import Path

import torch.distributed as dist

from nas.api.callbacks import TrainingCallback
from nas.api.training import weights_summary
from nas.artifacts.history import read_reports_of, write_csv
from nas.artifacts.paths import CHECKPOINT
from nas.config.pretraining import PretrainingSpec
from nas.data.image_folder import (
    SPLITS,
    LabelledImages,
    check_images,
    find_classes,
    fingerprint,
    read_split,
)
from nas.export.description import make_origin
from nas.reports import PretrainingReport
from nas.training.launch import started_by_torchrun
from nas.training.pretraining import Pretraining, pretrain
from nas.utils.device import default_device
from nas.utils.distributed import World
from nas.utils.files import check_file
from nas.utils.folders import claim_folder, remove_claimed
from nas.utils.paths import localize
from search_spaces.layout import Layout


def work_folder(out: Path) -> Path:
    """Name the folder beside a file of weights that an interrupted pre-training goes on from."""
    return out.with_name(out.name + ".training")


def curve_file(out: Path) -> Path:
    """Name the table beside a file of weights with the figures of each epoch."""
    return out.with_suffix(".curves.csv")


def pretrain_weights(
    layout: Layout, spec: PretrainingSpec, out: Path, callback: TrainingCallback
) -> PretrainingReport | None:
    """Pre-train a layout by image classification and write the backbone's weights.

    Where torchrun has started several processes, each calls this function with the same arguments.

    Args:
        layout: the backbone.
        spec: the request.
        out: a new file of weights, `*.safetensors`. Beside it is its curve (`curve_file`) and,
            until the weights are written, what an interrupted run goes on from (`work_folder`).
        callback: is told what happens; of several processes, in the first.

    Returns:
        The last report; None in all of several processes but the first.

    Raises:
        UserError: something that was asked for cannot be done.
        CandidateError: the training diverged or does not fit into memory, or what lies in
            `work_folder` is of another run.
    """
    callback.on_begin(layout, spec.recipe.epochs)
    root = localize(spec.data)
    classes = find_classes(root)
    if spec.recipe.weights:
        check_file("recipe.weights", spec.recipe.weights)
        callback.on_weights(weights_summary(layout, spec.recipe))
    splits, work = [read_split(root, name, classes) for name in SPLITS], work_folder(out)
    claim_folder(work)
    world, device = started_by_torchrun(default_device())
    told = callback if world.first else TrainingCallback()
    _check(splits, world, work, told)
    pretraining = Pretraining(
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
    report = _train(pretraining, splits, world, told)
    if not world.first:
        return None
    remove_claimed(work)
    return report


def _check(
    splits: list[LabelledImages], world: World, work: Path, callback: TrainingCallback
) -> None:
    """Look into the images, of several processes each into its share, unless that was done before
    the checkpoint was written; a folder for nothing is not left behind.
    """
    if (work / CHECKPOINT).exists():
        return
    try:
        for images in splits:
            check_images(images.share(world.rank, world.size), callback.on_image)
    except BaseException:
        remove_claimed(work)
        raise


def _train(
    pretraining: Pretraining,
    splits: list[LabelledImages],
    world: World,
    callback: TrainingCallback,
) -> PretrainingReport:
    """The last report; the curve is there from the first epoch on."""
    for report in pretrain(pretraining, *splits, on_step=callback.on_step):
        callback.on_report(report)
        if world.first:
            reports = read_reports_of(PretrainingReport, pretraining.folder)
            write_csv(curve_file(pretraining.out), reports)
    if world.size > 1:
        dist.destroy_process_group()
    return report


def _origin(spec: PretrainingSpec, splits: list[LabelledImages]) -> dict[str, object]:
    images = {f"{split.folder.name}_images": len(split.files) for split in splits}
    return make_origin(data=Path(spec.data).resolve().name, **images)
