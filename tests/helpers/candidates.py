"""Candidates that train in seconds, and how they are interrupted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from nas.artifacts.paths import CHECKPOINT
from nas.config.recipe import Recipe
from nas.config.sections import CalibrationSpec, DetectorSpec
from nas.data.coco import CocoSplit
from nas.reports import EpochReport
from nas.training.candidate import Candidate, train_candidate
from search_spaces.layout import Layout


def candidate(folder: Path, **changes: object) -> Candidate:
    keys = {
        "epochs": 3,
        "image_size": 48,
        "batch": 8,
        "images_per_gpu": 4,
        "lr": 1e-3,
        "schedule": "cosine",
        "train_sizes": [40, 48],
    }
    made = Candidate(
        layout=Layout.parse("C1-C1-T2-T1@16"),
        detector=DetectorSpec(name="fcos", channels=32, hidden=64),
        recipe=Recipe.model_validate(keys),
        calibration=CalibrationSpec(),
        num_classes=10,
        seed=0,
        folder=folder,
    )
    return dataclasses.replace(made, **changes)


def small(detector: str) -> DetectorSpec:
    return DetectorSpec(name=detector, channels=32, hidden=64, regions=64, proposals=20)


def comparable(report: EpochReport) -> EpochReport:
    """Without what the clock decides."""
    return dataclasses.replace(report, fps=0, train_s=0, elapsed_s=0)


def part(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """A part of a run's checkpoint."""
    found: dict[str, torch.Tensor] = torch.load(folder / CHECKPOINT, weights_only=True)[name]
    return found


def killed_and_resumed(
    killed: Candidate, splits: Sequence[CocoSplit], killed_after: int
) -> list[EpochReport]:
    """Kill a training of three epochs of three steps in a step, train it to its end, and see that
    no step came twice: the reports of the second run.
    """
    steps: list[int] = []

    def kill(step: int, of: int, loss: float) -> None:
        steps.append(step)
        if len(steps) == killed_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(train_candidate(killed, *splits, on_step=kill))
    heard = list(map(comparable, train_candidate(killed, *splits, on_step=kill)))
    assert steps == [1, 2, 3] * 3
    return heard
