"""Several processes on one candidate: the same numbers as one process, and nobody left behind."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from nas.artifacts.paths import CHECKPOINT, WEIGHTS
from nas.config.recipe import Recipe
from nas.config.sections import CalibrationSpec, DetectorSpec
from nas.data.splits import Splits
from nas.data.validation import check_split
from nas.errors import CandidateError, NonFiniteLoss, OutOfMemory
from nas.models.backbones import build_backbone
from nas.reports import EpochReport
from nas.training.candidate import Candidate
from nas.training.launch import train_on
from search_spaces.layout import Layout

LAYOUTS = [
    "C1-C1-T2-T1@16+norm=gn",
    "T1-T1-T1-T1@16",
]  # the statistics of a batch norm are those of one process's images


@pytest.fixture(scope="module")
def splits(digits: Path) -> Splits:
    """Eight images, so that an epoch is one step and its loss that of the step; and few to
    evaluate, which takes longest.
    """
    train, val = check_split(digits, "train").split, check_split(digits, "val").split
    kept = {image.id for image in train.images[:8]}
    boxes = tuple(box for box in train.boxes if box.image_id in kept)
    return Splits(dataclasses.replace(train, images=train.images[:8], boxes=boxes), val.subset(0.2))


def candidate(folder: Path, **changes: object) -> Candidate:
    keys = {
        "epochs": 10,
        "image_size": 64,
        "train_sizes": [48, 64],
        "batch": 8,
        "lr": 1e-3,
        "schedule": "constant",
    }
    return Candidate(
        layout=Layout.parse(str(changes.pop("layout", LAYOUTS[0]))),
        detector=DetectorSpec(
            name=str(changes.pop("detector", "fcos")),
            channels=32,
            hidden=32,
            regions=64,
            proposals=20,
        ),
        recipe=Recipe.model_validate(keys | changes),
        calibration=CalibrationSpec(definition="paper"),
        num_classes=10,
        seed=0,
        folder=folder,
    )


def losses(reports: list[EpochReport]) -> list[float]:
    return [report.loss for report in reports]


# RepPoints v2 and Sparse R-CNN match what they have predicted, so that rounding changes their
# targets: see their own tests.
@pytest.mark.parametrize(
    ("layout", "detector"), [(LAYOUTS[0], "fcos"), (LAYOUTS[1], "fcos"), (LAYOUTS[0], "atss")]
)
def test_two_processes_equal_one_with_the_same_batch(
    tmp_path: Path, splits: Splits, layout: str, detector: str
):
    # The paper's rate. Rounding differs between one process and two, and Adam magnifies it: at 1e-3
    # to 2e-3 in ten steps.
    how = {"layout": layout, "detector": detector, "lr": 1e-4}
    alone = list(train_on(1, candidate(tmp_path / "one", **how), splits))
    together = list(train_on(2, candidate(tmp_path / "two", **how), splits))
    assert len(alone) == len(together) == 10
    assert losses(together) == pytest.approx(losses(alone), abs=1e-4)
    assert alone[-1].loss < 0.99 * alone[0].loss  # there was something to agree on
    for name in ("factor_min", "factor_max", "spread_before", "spread_after", "loss_before"):
        assert together[0].calibration[name] == pytest.approx(
            alone[0].calibration[name], rel=1e-4
        ), name
    for mine, yours in zip(together, alone, strict=True):
        assert mine.metrics.map == pytest.approx(yours.metrics.map, abs=1e-3)
    mine, yours = (load_file(tmp_path / name / WEIGHTS) for name in ("two", "one"))
    assert all(torch.allclose(mine[name], yours[name], atol=2e-3) for name in yours)


def test_two_processes_have_the_outputs_of_one(tmp_path: Path, splits: Splits):
    (alone,), (together,) = (
        list(
            train_on(
                size,
                dataclasses.replace(
                    candidate(tmp_path / str(size), epochs=1, detector="faster_rcnn"),
                    calibration=CalibrationSpec(definition="outputs"),
                ),
                splits,
            )
        )
        for size in (1, 2)
    )
    assert alone.calibration["definition"] == "outputs"
    assert together.calibration.keys() == alone.calibration.keys()
    for name in ("anchor_shares", "region_counts"):
        assert together.calibration[name] == pytest.approx(alone.calibration[name]), name


def test_two_processes_leave_frozen_stages_alone(tmp_path: Path, splits: Splits):
    """With an average of the weights, which is what is kept."""
    state = build_backbone(Layout.parse(LAYOUTS[0])).state_dict()
    torch.save(state, tmp_path / "w.pt")
    how = {"weights": str(tmp_path / "w.pt"), "frozen_stages": 3, "epochs": 2, "ema": 0.5}
    alone, together = (
        list(train_on(size, candidate(tmp_path / str(size), **how), splits)) for size in (1, 2)
    )
    assert losses(together) == pytest.approx(losses(alone), abs=1e-4)
    kept = load_file(tmp_path / "2" / WEIGHTS)
    root = "backbone.backbone."
    for name, tensor in state.items():
        frozen = name.startswith(("stem.", "stages.0.", "stages.1.", "stages.2.", "norms.2."))
        assert torch.equal(kept[root + name], tensor) == frozen, name


def gradient(folder: Path) -> torch.Tensor:
    """Of the only step: what SGD's momentum begins with."""
    state = torch.load(folder / CHECKPOINT, weights_only=True)["optimizer"]["state"]
    return torch.cat([of_tensor["momentum_buffer"].flatten() for of_tensor in state.values()])


def test_two_processes_equal_one_in_the_step_after_a_matching(tmp_path: Path, splits: Splits):
    how = {"detector": "sparse_rcnn", "optimizer": "sgd", "epochs": 1}
    alone, together = (
        list(train_on(size, candidate(tmp_path / str(size), **how), splits)) for size in (1, 2)
    )
    assert losses(together) == pytest.approx(losses(alone), rel=1e-4)
    mine, yours = gradient(tmp_path / "2"), gradient(tmp_path / "1")
    assert (
        (mine - yours).norm() < 0.1 * yours.norm()
    )  # a proposal on the edge of two boxes, or of two levels, may change sides


def test_accumulated_batches_of_two_processes_equal_one_large_batch(tmp_path: Path, splits: Splits):
    alone = list(train_on(1, candidate(tmp_path / "one", images_per_gpu=4, epochs=3), splits))
    together = list(train_on(2, candidate(tmp_path / "two", images_per_gpu=2, epochs=3), splits))
    assert losses(together) == pytest.approx(losses(alone), abs=1e-4)


@pytest.mark.parametrize(
    "detector",
    [
        "fcos",
        pytest.param("faster_rcnn", marks=pytest.mark.long),
        pytest.param("cascade_mask_rcnn", marks=pytest.mark.long),
    ],
)
def test_two_processes_go_on_exactly_where_they_were_stopped(
    tmp_path: Path, splits: Splits, detector: str
):
    whole, broken = (
        candidate(tmp_path / name, epochs=3, detector=detector) for name in ("whole", "broken")
    )
    expected = list(train_on(2, whole, splits))
    first = train_on(2, broken, splits)
    next(first)
    first.close()
    seen = list(train_on(2, broken, splits))
    assert losses(seen) == losses(expected)  # the first is the report of before
    assert (broken.folder / WEIGHTS).read_bytes() == (whole.folder / WEIGHTS).read_bytes()


def children() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if "spawn_main" in " ".join(child.cmdline())
    ]


def test_a_process_that_dies_ends_the_candidate_and_the_others(tmp_path: Path, splits: Splits):
    run = train_on(2, candidate(tmp_path, epochs=1000), splits)
    next(run)
    victim = children()[-1]
    os.kill(victim.pid, signal.SIGKILL)
    with pytest.raises(CandidateError):
        list(run)
    assert not children()
    assert (tmp_path / CHECKPOINT).exists()


def test_nobody_trains_on_when_nobody_wants_the_next_report(tmp_path: Path, splits: Splits):
    run = train_on(2, candidate(tmp_path, epochs=1000), splits)
    next(run)
    assert len(children()) == 2
    run.close()
    assert not children()


def test_an_error_keeps_its_kind(tmp_path: Path, splits: Splits):
    with pytest.raises(NonFiniteLoss, match="not finite at step 1"):
        list(train_on(2, candidate(tmp_path, lr=1e30, epochs=5), splits))


def test_errors_travel_between_processes():
    import pickle

    error = pickle.loads(pickle.dumps(OutOfMemory("too large", 123)))
    assert (type(error), str(error), error.peak_bytes) == (OutOfMemory, "too large", 123)
