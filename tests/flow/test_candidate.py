"""One candidate through all of its steps, interrupted and not."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import pytest
import torch
from helpers.candidates import candidate, comparable, killed_and_resumed, part, small
from PIL import Image
from safetensors.torch import load_file, save_file

from nas.artifacts.history import read_reports
from nas.artifacts.paths import CHECKPOINT, CURVES, DETECTIONS, LOG, REPORTS, WEIGHTS
from nas.config.choices import Schedule
from nas.config.sections import CalibrationSpec, DetectorSpec
from nas.data.coco import CocoSplit
from nas.data.validation import check_split
from nas.errors import CandidateError, NonFiniteLoss
from nas.models.backbones import build_backbone
from nas.reports import EpochReport
from nas.training.candidate import Candidate, train_candidate
from nas.training.epochs import Epochs
from search_spaces.layout import Layout


@pytest.fixture(scope="module")
def splits(digits: Path) -> tuple[CocoSplit, CocoSplit]:
    return check_split(digits, "train").split, check_split(digits, "val").split


class Trained(NamedTuple):
    """A candidate that was trained without an interruption, and its reports."""

    candidate: Candidate
    reports: list[EpochReport]


@pytest.fixture(scope="module")
def trained(
    splits: tuple[CocoSplit, CocoSplit], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Trained]:
    """Train `candidate(**changes)` to its end, once for all tests that compare with it; they leave
    its folder as it is.
    """
    done: dict[str, Trained] = {}

    def train(**changes: object) -> Trained:
        key = repr(sorted(changes.items()))
        if key not in done:
            made = candidate(tmp_path_factory.mktemp("whole"), **changes)
            done[key] = Trained(made, list(train_candidate(made, *splits)))
        return done[key]

    return train


@pytest.mark.parametrize("detector", ["fcos", "faster_rcnn"])
def test_reports_and_files(tmp_path: Path, splits: tuple[CocoSplit, CocoSplit], detector: str):
    steps: list[tuple[int, int]] = []
    spec = DetectorSpec(name=detector, channels=32, hidden=64, proposals=20)
    made = candidate(tmp_path, detector=spec, calibration=CalibrationSpec(definition="paper"))
    reports = list(train_candidate(made, *splits, on_step=lambda *step: steps.append(step[:2])))
    assert [report.epoch for report in reports] == [1, 2, 3]
    assert [report.last for report in reports] == [False, False, True]
    assert [report.keeps for report in reports] == [False, False, True]
    assert [report.kept_epoch for report in reports] == [1, 2, 3]
    assert all(report.kept == report.metrics for report in reports)
    assert steps == [(1, 3), (2, 3), (3, 3)] * 3  # 24 images, 8 a step
    assert reports[-1].loss < reports[0].loss
    assert all(0 <= report.metrics.map <= 1 for report in reports)
    assert reports[0].calibration["definition"] == "paper"
    assert reports[0].calibration["layers"] == 22
    assert reports[0].memory_peak_bytes is None
    assert reports[0].device == "cpu"
    assert 0 < reports[0].train_s < reports[2].train_s < reports[2].elapsed_s
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(
        [CHECKPOINT, LOG, WEIGHTS, REPORTS, CURVES, DETECTIONS]
    )
    assert len(list((tmp_path / DETECTIONS).glob("*.png"))) == 4
    assert read_reports(tmp_path) == reports


def test_the_log_has_every_epoch(trained: Callable[..., Trained]):
    done, reports = trained()
    lines = [json.loads(line) for line in (done.folder / LOG).read_text().splitlines()]
    assert [(line["epoch"], line["loss"], line["lr"]) for line in lines] == [
        (r.epoch, r.loss, r.lr) for r in reports
    ]


@pytest.mark.parametrize("detector", ["fcos", "faster_rcnn", "reppoints_v2", "sparse_rcnn"])
def test_an_interrupted_run_ends_exactly_like_an_uninterrupted_one(
    tmp_path: Path,
    splits: tuple[CocoSplit, CocoSplit],
    trained: Callable[..., Trained],
    detector: str,
):
    whole, expected = trained(detector=small(detector))
    broken = dataclasses.replace(whole, folder=tmp_path / "broken")
    first = train_candidate(broken, *splits)
    seen = [next(first)]
    first.close()
    torch.manual_seed(99)
    second = train_candidate(broken, *splits)
    seen += [next(second), next(second)]  # the first epoch's report again, then the second epoch
    second.close()
    seen += list(train_candidate(broken, *splits))
    assert [report.epoch for report in seen] == [1, 1, 2, 2, 3]
    for report in seen:
        assert comparable(report) == comparable(expected[report.epoch - 1])
    assert list(map(comparable, read_reports(broken.folder))) == list(map(comparable, expected))
    mine, yours = load_file(broken.folder / WEIGHTS), load_file(whole.folder / WEIGHTS)
    assert all(torch.equal(mine[name], yours[name]) for name in yours)


@pytest.mark.parametrize("schedule", get_args(Schedule))
@pytest.mark.parametrize("stopped_after", [1, 2, 3])
def test_any_schedule_stopped_after_any_epoch_ends_with_the_same_weights(
    tmp_path: Path,
    splits: tuple[CocoSplit, CocoSplit],
    trained: Callable[..., Trained],
    schedule: str,
    stopped_after: int,
    monkeypatch: pytest.MonkeyPatch,
):
    told = Epochs.has_converged
    monkeypatch.setattr(Epochs, "has_converged", lambda self, score: told(self, 0.5))
    keys = {
        "schedule": schedule,
        "epochs": 4,
        "decay_epochs": (2,),
        "patience": 1,
        "lr": 1e-3,
    }
    rule = candidate(tmp_path).recipe.model_copy(update=keys)
    whole, expected = trained(recipe=rule)
    broken = candidate(tmp_path, recipe=rule)
    first = train_candidate(broken, *splits)
    for _ in zip(range(stopped_after), first):  # noqa: B905
        pass
    first.close()
    list(train_candidate(broken, *splits))
    assert (broken.folder / WEIGHTS).read_bytes() == (whole.folder / WEIGHTS).read_bytes()
    assert [report.epoch for report in expected] == (
        [1, 2, 3] if schedule == "saturate" else [1, 2, 3, 4]
    )
    assert expected[-1].converged == (schedule == "saturate")
    if schedule == "saturate":  # a gain, a decay, the end
        assert [report.lr for report in expected] == pytest.approx([1e-3, 1e-3, 1e-4])


def test_saturation_is_not_waited_for_in_the_warmup(
    tmp_path: Path, splits: tuple[CocoSplit, CocoSplit], monkeypatch: pytest.MonkeyPatch
):
    told = Epochs.has_converged
    monkeypatch.setattr(Epochs, "has_converged", lambda self, score: told(self, 0.5))
    keys = {"schedule": "saturate", "epochs": 8, "patience": 1, "warmup_steps": 7}
    rule = candidate(tmp_path).recipe.model_copy(update=keys)
    reports = list(train_candidate(candidate(tmp_path, recipe=rule), *splits))
    assert len(reports) == 4  # three steps an epoch: the warm-up ends in the third, the rate falls
    assert reports[-1].converged


@pytest.mark.parametrize("detector", ["fcos", "faster_rcnn"])
@pytest.mark.parametrize("killed_after", [1, 5])
def test_a_run_killed_within_an_epoch_repeats_none_of_its_steps(
    tmp_path: Path,
    splits: tuple[CocoSplit, CocoSplit],
    trained: Callable[..., Trained],
    detector: str,
    killed_after: int,
):
    whole, expected = trained(detector=small(detector))
    killed = candidate(tmp_path, detector=small(detector), checkpoint_s=0)
    heard = killed_and_resumed(killed, splits, killed_after)
    assert heard == [comparable(report) for report in expected][3 - len(heard) :]
    assert (killed.folder / WEIGHTS).read_bytes() == (whole.folder / WEIGHTS).read_bytes()


def test_an_epoch_that_ends_without_its_checkpoint_is_recorded_once(
    tmp_path: Path, splits: tuple[CocoSplit, CocoSplit], monkeypatch: pytest.MonkeyPatch
):
    run = train_candidate(candidate(tmp_path), *splits)
    next(run)
    with monkeypatch.context() as patch:
        patch.setattr(
            "nas.training.trainer.save_checkpoint",
            lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt),
        )
        with pytest.raises(KeyboardInterrupt):
            next(run)
    assert [report.epoch for report in read_reports(tmp_path)] == [1, 2]
    list(train_candidate(candidate(tmp_path), *splits))
    assert [report.epoch for report in read_reports(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize("kept", ["light", "full"])
def test_checkpointing_changes_nothing_but_memory(
    tmp_path: Path,
    splits: tuple[CocoSplit, CocoSplit],
    trained: Callable[..., Trained],
    kept: str,
):
    plain, expected = trained()
    recipe = plain.recipe.model_copy(update={"checkpointing": kept})
    checkpointed = dataclasses.replace(plain, folder=tmp_path, recipe=recipe)
    assert [comparable(report) for report in train_candidate(checkpointed, *splits)] == list(
        map(comparable, expected)
    )
    mine, yours = (load_file(run.folder / WEIGHTS) for run in (checkpointed, plain))
    assert all(torch.equal(mine[name], yours[name]) for name in yours)


def test_sgd_learns(tmp_path: Path, splits: tuple[CocoSplit, CocoSplit]):
    recipe = candidate(tmp_path).recipe.model_copy(
        update={"optimizer": "sgd", "lr": 1e-2, "clip_norm": 1.0}
    )
    reports = list(train_candidate(candidate(tmp_path, recipe=recipe), *splits))
    assert reports[-1].loss < reports[0].loss


def test_a_finished_run_only_repeats_its_last_report(
    tmp_path: Path, splits: tuple[CocoSplit, CocoSplit], trained: Callable[..., Trained]
):
    done, reports = trained()
    shutil.copytree(done.folder, tmp_path, dirs_exist_ok=True)
    assert list(train_candidate(candidate(tmp_path), *splits)) == reports[-1:]


def test_a_finished_run_taken_over_in_another_folder_leaves_its_weights_there(
    tmp_path: Path, splits: tuple[CocoSplit, CocoSplit], trained: Callable[..., Trained]
):
    first = trained().candidate.folder
    shutil.copy(first / CHECKPOINT, tmp_path)
    (report,) = train_candidate(candidate(tmp_path), *splits)
    assert report.last
    mine, yours = (load_file(folder / WEIGHTS) for folder in (tmp_path, first))
    assert all(torch.equal(mine[name], yours[name]) for name in yours)


def test_the_seed_decides(tmp_path: Path, splits: tuple[CocoSplit, CocoSplit]):
    runs = [
        next(train_candidate(candidate(tmp_path / str(index), seed=seed), *splits)).loss
        for index, seed in enumerate((0, 0, 1))
    ]
    assert runs[0] == runs[1] != runs[2]


def test_another_recipe_does_not_go_on_with_this_checkpoint(
    tmp_path: Path, splits: tuple[CocoSplit, CocoSplit]
):
    run = train_candidate(candidate(tmp_path), *splits)
    next(run)
    run.close()
    recipe = candidate(tmp_path).recipe.model_copy(update={"lr": 2e-3})
    with pytest.raises(CandidateError, match="belongs to another run"):
        next(train_candidate(candidate(tmp_path, recipe=recipe), *splits))


def test_the_test_split_is_scored_once_at_the_end(
    tmp_path: Path, splits: tuple[CocoSplit, CocoSplit]
):
    reports = list(train_candidate(candidate(tmp_path), *splits, splits[1]))
    assert [report.test is None for report in reports] == [True, True, False]
    assert reports[-1].test == reports[-1].metrics  # here it is the validation split
    assert list(train_candidate(candidate(tmp_path), *splits, splits[1])) == reports[-1:]


@pytest.mark.parametrize("detector", ["fcos", "faster_rcnn"])
def test_the_outputs_that_calibration_sets_are_trained_on(
    tmp_path: Path, splits: tuple[CocoSplit, CocoSplit], detector: str
):
    recipe = candidate(tmp_path).recipe.model_copy(update={"lr": 1e-12})  # moves nothing
    run = train_candidate(candidate(tmp_path, detector=small(detector), recipe=recipe), *splits)
    calibration = next(run).calibration
    run.close()
    assert calibration["definition"] == "outputs"
    state = part(tmp_path, "detector")
    if detector == "fcos":
        biases, expected = "head.classification_head.cls_logits.bias", calibration["class_biases"]
    else:
        biases = "rpn.head.cls_logits.bias"
        expected = torch.tensor(calibration["anchor_shares"]).logit(eps=1e-6).tolist()
    assert state[biases].tolist() == pytest.approx(expected, abs=1e-5)


def test_images_are_normalised_by_their_own_statistics_where_that_is_asked_for(
    tmp_path: Path, splits: tuple[CocoSplit, CocoSplit]
):
    own = CalibrationSpec(inputs="data")
    run = train_candidate(candidate(tmp_path / "first", calibration=own), *splits)
    inputs = next(run).calibration["inputs"]
    run.close()
    folder = splits[0].folder
    pixels = np.concatenate(
        [
            np.asarray(Image.open(folder / image.file_name).convert("RGB")).reshape(-1, 3) / 255
            for image in splits[0].images
        ]
    )
    assert inputs["mean"] == pytest.approx(pixels.mean(axis=0), abs=0.02)  # images are resized
    assert inputs["std"] == pytest.approx(pixels.std(axis=0), abs=0.03)
    state = part(tmp_path / "first", "detector")
    assert state["transform.mean"].flatten().tolist() == pytest.approx(inputs["mean"], abs=1e-6)
    # Weights that were trained so are gone on with so.
    save_file(state, tmp_path / "first.safetensors")
    run = train_candidate(
        with_weights(tmp_path / "second", tmp_path / "first.safetensors"), *splits
    )
    next(run)
    run.close()
    again = part(tmp_path / "second", "detector")
    assert torch.equal(again["transform.std"], state["transform.std"])


def test_calibration_can_be_off(tmp_path: Path, splits: tuple[CocoSplit, CocoSplit]):
    report = next(
        train_candidate(candidate(tmp_path, calibration=CalibrationSpec(enabled=False)), *splits)
    )
    assert report.calibration is None


def with_weights(folder: Path, path: Path) -> Candidate:
    """Starts from a file; a learning rate that moves nothing."""
    recipe = candidate(folder).recipe.model_copy(update={"weights": str(path), "lr": 1e-12})
    return candidate(folder, recipe=recipe)


def test_weights_from_a_file_are_trained_on_uncalibrated(
    tmp_path: Path, splits: tuple[CocoSplit, CocoSplit], trained: Callable[..., Trained]
):
    file = trained().candidate.folder / WEIGHTS
    second = with_weights(tmp_path, file)
    run = train_candidate(second, *splits)
    assert next(run).calibration is None
    run.close()
    expected = load_file(file)
    moved = torch.load(second.folder / CHECKPOINT, weights_only=True)["detector"]
    names = [
        name
        for name in expected
        if name.startswith("backbone.backbone.") and name.endswith(("weight", "bias"))
    ]
    assert all(torch.allclose(moved[name], expected[name], atol=1e-6) for name in names)
    count = len(
        [
            name
            for name in expected
            if name.startswith("backbone.backbone.") and "num_batches" not in name
        ]
    )
    lines = [json.loads(line) for line in (second.folder / LOG).read_text().splitlines()]
    assert lines[0] == {
        "weights": f"taken over {count} of {count} tensors from scratch-nas detector"
    }
    assert [line["epoch"] for line in lines[1:]] == [1]


def test_a_run_that_goes_on_needs_its_weights_no_more(
    tmp_path: Path, splits: tuple[CocoSplit, CocoSplit]
):
    file = tmp_path / "backbone.pt"
    torch.save(build_backbone(Layout.parse("C1-C1-T2-T1@16")).state_dict(), file)
    run = train_candidate(with_weights(tmp_path / "run", file), *splits)
    next(run)
    run.close()
    file.unlink()
    reports = list(train_candidate(with_weights(tmp_path / "run", file), *splits))
    assert [report.epoch for report in reports] == [1, 2, 3]


def test_divergence_keeps_the_last_checkpoint(
    tmp_path: Path, splits: tuple[CocoSplit, CocoSplit], monkeypatch: pytest.MonkeyPatch
):
    calm = train_candidate(candidate(tmp_path), *splits)
    next(calm)
    calm.close()
    before = (tmp_path / CHECKPOINT).read_bytes()
    monkeypatch.setattr("nas.training.epochs.lr_at", lambda *_: 1e30)
    with pytest.raises(NonFiniteLoss):
        list(train_candidate(candidate(tmp_path), *splits))
    assert (tmp_path / CHECKPOINT).read_bytes() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "detector", ["fcos", "faster_rcnn", "atss", "reppoints_v2", "cascade_mask_rcnn", "sparse_rcnn"]
)
def test_on_a_gpu(
    tmp_path: Path, splits: tuple[CocoSplit, CocoSplit], detector: str, precision: str
):
    recipe = candidate(tmp_path).recipe.model_copy(update={"precision": precision})
    spec = DetectorSpec(name=detector, channels=32, hidden=64, proposals=20)
    reports = list(
        train_candidate(candidate(tmp_path, detector=spec, recipe=recipe, device="cuda"), *splits)
    )
    assert reports[-1].loss < reports[0].loss
    assert reports[-1].memory_peak_bytes > 0
