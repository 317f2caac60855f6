"""A backbone that does not start from scratch: from a file of weights to a bundle that says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.commands import Run
from helpers.studies import trained_search
from safetensors.torch import load_file

from nas.api.requests import checked_spec
from nas.artifacts.paths import WEIGHTS
from nas.config.recipe import Recipe
from nas.config.sections import CalibrationSpec, DetectorSpec
from nas.data.validation import check_split
from nas.export.bundle import read_description
from nas.models.backbones import build_backbone
from nas.reports import EpochReport
from nas.training.candidate import Candidate, train_candidate
from search_spaces.layout import Layout

COMMAND = (
    "train C1-C1-T1-T1@16 --recipe tiny --detector fcos --epochs 1 --image-size 48 --set "
    "detector.channels=64 --no-onnx "
    "--set recipe.weights=resnet.pt --out tuned"
)
# C: a stem of 5 tensors, blocks of 15 and, with a projection, 20; T: blocks of 13, mergings of 3,
# output norms of 2.
SUMMARY = (
    "taken over 40 of 76 tensors from scratch-nas backbone; not in the file: "
    "stages.2.merging.norm (+19); has no place: "
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with weights for two stages of the layout."""
    monkeypatch.chdir(tmp_path)
    torch.save(build_backbone(Layout.parse("C1-C1-C1-C1@16")).state_dict(), tmp_path / "resnet.pt")
    return tmp_path


def test_train_says_what_it_starts_from(folder: Path, digits: Path, nas: Run):
    code, out, err = nas(*COMMAND.split(), "--data", digits)
    assert code == 0
    assert err.splitlines()[0].startswith(f"weights: {SUMMARY}")
    assert "mAP" in out
    trained = read_description(folder / "tuned")
    assert trained.recipe.weights == str(folder / "resnet.pt")
    card = (folder / "tuned" / "README.md").read_text()
    assert "trained from the weights in resnet.pt" in card
    assert "from scratch" not in card
    assert "- calibration: -" in card


def test_train_with_json_does_not(folder: Path, digits: Path, nas: Run):
    trained = nas(*COMMAND.split(), "--data", digits, "--json")
    assert trained.json["layout"] == "C1-C1-T1-T1@16"
    assert "weights" not in trained.err


def test_a_request_keeps_the_whole_path(folder: Path, digits: Path):
    spec = checked_spec(None, {"data.root": str(digits), "recipe.weights": "resnet.pt"})
    assert spec.recipe.weights == str(folder / "resnet.pt")
    assert checked_spec(None, {"data.root": str(digits)}).recipe.weights is None


def test_the_candidates_of_a_search_start_from_them(folder: Path, digits: Path):
    flags = {
        "recipe.epochs": 1,
        "recipe.image_size": 48,
        "search.trials": 1,
        "search.try": ["C1-C1-T2-T1@16"],
    }
    study = trained_search(folder, digits, **flags, **{"recipe.weights": str(folder / "resnet.pt")})
    (trial,) = study.study.trials
    assert trial.user_attrs["calibration"] is None
    (log,) = folder.glob("runs/*/trial-*/log.jsonl")
    assert json.loads(log.read_text().splitlines()[0])["weights"].startswith("taken over ")


def test_a_training_with_frozen_stages_goes_on_where_it_stopped(folder: Path, digits: Path):
    """In one go, and with an interruption in the second epoch."""
    splits = [check_split(digits, name).split.subset(0.1) for name in ("train", "val")]
    keys = {"epochs": 2, "image_size": 48, "batch": 4, "lr": 1e-3, "weights": "resnet.pt"}
    recipe = Recipe.model_validate({**keys, "frozen_stages": 2, "norm_eval": True, "ema": 0.9})

    def reports(name: str, halt_after: int = 1000) -> list[EpochReport]:
        made = Candidate(
            Layout.parse("C1-C1-T1-T1@16"),
            DetectorSpec(name="fcos", channels=32),
            recipe,
            CalibrationSpec(),
            10,
            0,
            folder / name,
            checkpoint_s=0,
        )
        done = 0

        def on_step(*_: object) -> None:
            nonlocal done
            done += 1
            if done > halt_after:
                raise KeyboardInterrupt

        return list(train_candidate(made, *splits, on_step=on_step))

    whole = reports("whole")
    steps = len(splits[0].images) // 4
    with pytest.raises(KeyboardInterrupt):
        reports("halted", steps + 1)
    assert reports("halted")[-1].loss == whole[-1].loss
    mine, yours = (load_file(folder / name / WEIGHTS) for name in ("halted", "whole"))
    assert all(torch.equal(mine[name], yours[name]) for name in yours)
    for name, tensor in torch.load(folder / "resnet.pt").items():
        if name.startswith(("stem.", "stages.0.", "stages.1.")):
            assert torch.equal(mine[f"backbone.backbone.{name}"], tensor), name


def test_a_stage_to_freeze_must_be_in_the_file(folder: Path, digits: Path, nas: Run):
    code, _, err = nas(*COMMAND.split(), "--set", "recipe.frozen_stages=3", "--data", digits)
    assert code == 2
    assert "recipe.frozen_stages must be of stages that recipe.weights has; got 3" in err
