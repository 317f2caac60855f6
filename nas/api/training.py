"""One candidate, trained and written as a bundle, its curves beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nas.api.callbacks import TrainingCallback
from nas.api.evaluation import eval_loader
from nas.artifacts.curves import clear_curves, write_curves
from nas.artifacts.history import read_reports
from nas.artifacts.paths import DETECTIONS, WEIGHTS
from nas.config.recipe import Recipe
from nas.config.spec import SearchSpec
from nas.data.coco import CocoSplit
from nas.data.splits import Splits
from nas.errors import DataError
from nas.evaluation.coco import detect
from nas.evaluation.visualization import sample, write_drawings
from nas.export.bundle import check_target, read_bundle, write_bundle
from nas.export.description import Trained, make_origin
from nas.models.backbones import build_backbone
from nas.planning.adaptation import BOXES_ONLY, adapt_to_data, plan_of
from nas.planning.lengthening import with_epochs
from nas.profiling.flops import count_cost
from nas.reports import DatasetSummary, EpochReport, calibration_warning
from nas.reports.dataset import same_data
from nas.study.provenance import public_spec
from nas.training.candidate import Candidate, train_candidate
from nas.training.network import load_weights
from nas.training.pace import TimeSlot
from nas.utils.device import default_device, tf32
from nas.utils.files import ensure_writable
from nas.utils.folders import claim_folder, remove_claimed
from nas.utils.formatting import gib
from search_spaces.layout import Layout


def train_bundle(
    layout: Layout,
    spec: SearchSpec,
    out: Path,
    callback: TrainingCallback,
    *,
    onnx: bool = True,
    fingerprint: str | None = None,
    slot: TimeSlot | None = None,
) -> tuple[Trained, list[str]]:
    """Train a candidate on this machine's GPU, or CPU, and write it as a bundle.

    Args:
        layout: the backbone.
        spec: a complete request (see `nas.api.requests.checked_spec`); what it says of a search
            does not matter.
        out: folder of the bundle. Beside it are its curves (`curves_folder`) and, until the bundle
            is written, what an interrupted run goes on from.
        callback: is told what happens.
        onnx: write ONNX files too, which takes up to a minute.
        fingerprint: that of the data must be equal to it, unless it is None.
        slot: when the training ends, whatever the epochs of its recipe; None: with the recipe.

    Returns:
        What was written, and what was left out, in sentences.

    Raises:
        UserError: something that was asked for cannot be done.
        CandidateError: the training diverged or does not fit into memory.
    """
    check_target(out)
    work, curves = work_folder(out), curves_folder(out)
    callback.on_begin(layout, spec.recipe.epochs)
    if spec.recipe.weights:  # tried before the data are checked, which takes longer
        callback.on_weights(weights_summary(layout, spec.recipe))
    trained, val = _train(layout, spec, (work, curves), callback, fingerprint, slot)
    callback.on_trained()
    left_out = write_bundle(out, trained, work / WEIGHTS, onnx=onnx)
    _draw_samples(out, val, curves)
    remove_claimed(work)
    return replace(trained, left_out=tuple(left_out)), left_out


def work_folder(out: Path) -> Path:
    """Name the folder of what an interrupted run goes on from, beside its bundle's."""
    return out.with_name(out.name + ".training")


def curves_folder(out: Path) -> Path:
    """Name the folder of a bundle's curves and sample detections, which is beside it."""
    return out.with_name(out.name + ".curves")


def weights_summary(layout: Layout, recipe: Recipe) -> str:
    """Say what the backbone of a layout takes of a recipe's file of weights.

    Raises:
        SpecError: nothing, or not what is to stay as it is; or the file cannot be read.
    """
    return load_weights(build_backbone(layout), recipe).summary()


def _train(
    layout: Layout,
    spec: SearchSpec,
    folders: tuple[Path, Path],
    callback: TrainingCallback,
    fingerprint: str | None,
    slot: TimeSlot | None,
) -> tuple[Trained, CocoSplit]:
    """The trained candidate and the validation split; its curves are there from the first epoch
    on.
    """
    spec, splits, facts = _read_data(layout, spec, callback, fingerprint)
    work, curves = folders
    claim_folder(curves)
    claim_folder(work)
    if not read_reports(work):  # curves of another run
        clear_curves(curves)
    device = default_device()
    candidate = Candidate.from_spec(layout, spec, facts, work, device=device, slot=slot)
    for report in train_candidate(candidate, *splits, on_step=callback.on_step):
        if report.epoch == 1 and (warning := calibration_warning(report.calibration)):
            callback.on_note(f"warning: {warning}")
        callback.on_report(report)
        write_curves(curves, read_reports(work), str(layout))
    if slot:  # whoever trains by the bundle's recipe trains for as long
        spec = with_epochs(spec, report.epoch, facts.train_images, "what the time allowed")
    return _describe(layout, spec, facts, report), splits.val


def _read_data(
    layout: Layout, spec: SearchSpec, callback: TrainingCallback, fingerprint: str | None
) -> tuple[SearchSpec, Splits, DatasetSummary]:
    """The checked data, and the request as they allow it: without masks where they have none."""
    allowed, splits, facts = adapt_to_data(spec, callback.on_image, width=layout.widths[0])
    if allowed.detector != spec.detector:
        callback.on_note(BOXES_ONLY)
    for warning in plan_of(allowed, splits.train, layout.widths[0]).warnings:
        callback.on_note(warning)
    if fingerprint is not None and not same_data(fingerprint, facts.fingerprint):
        raise DataError(
            f"--data has fingerprint {facts.fingerprint}, the bundle was trained on {fingerprint}"
        )
    return allowed, splits, facts


def _describe(
    layout: Layout, spec: SearchSpec, facts: DatasetSummary, report: EpochReport
) -> Trained:
    cost = count_cost(layout, spec.detector, facts.num_classes, facts.batch_shape[2:])
    return Trained(
        layout,
        spec.detector,
        spec.recipe,
        spec.calibration,
        facts.categories,
        figures={"params": cost.params, "flops": cost.flops, **_figures(report)},
        origin=make_origin(
            seed=spec.search.seed,
            data=Path(spec.data.root).resolve().name,
            data_fingerprint=facts.fingerprint,
            hardware=report.hardware,
            wall_s=round(report.elapsed_s, 1),
        ),
        request=public_spec(spec),
    )


def _figures(report: EpochReport) -> dict[str, Any]:
    peak_bytes = report.memory_peak_bytes
    return {
        **report.kept.precisions(),
        **report.test_scores,
        "epochs": report.epoch,
        "kept_epoch": report.kept_epoch,
        "train_s": report.train_s,
        "gpu_s": 0.0 if peak_bytes is None else report.elapsed_s,
        "fps": report.fps,
        "device": report.device,
        "memory_peak_gib": None if peak_bytes is None else gib(peak_bytes),
    }


def _draw_samples(bundle: Path, val: CocoSplit, curves: Path) -> None:
    """Draw some validation images with what the bundle's detector finds on them."""
    trained, detector = read_bundle(bundle)
    chosen, device = sample(val), torch.device(default_device())
    loader = eval_loader(chosen, trained.recipe, device)
    with tf32(trained.recipe.tf32, device):
        detections, _ = detect(detector.to(device), loader, chosen, device)
    ensure_writable(curves / DETECTIONS)
    write_drawings(curves / DETECTIONS, chosen, detections)
