"""Frozen stages and kept statistics: what still learns, what moves in a step, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nas.config.recipe import Recipe
from nas.config.sections import DetectorSpec
from nas.errors import SpecError
from nas.models.backbones import build_backbone
from nas.models.detectors import Detector, build_detector
from nas.training.network import load_weights, prepare_network
from nas.training.optimizer import make_optimizer
from nas.utils.distributed import World
from search_spaces.layout import Layout

LAYOUT = Layout.parse("C1-C1-T1-C1@16")
CPU = torch.device("cpu")


def recipe(**keys: Any) -> Recipe:
    written = {"epochs": 1, "image_size": 64, "batch": 2, "lr": 0.1, "weights": "w.pt", **keys}
    return Recipe.model_validate(written)


def prepared(how: Recipe) -> Detector:
    torch.manual_seed(0)
    detector = build_detector(LAYOUT, DetectorSpec(name="faster_rcnn", channels=32, hidden=32), 3)
    return prepare_network(detector, how, LAYOUT.norm, CPU, World())


def step(detector: Detector, how: Recipe) -> set[str]:
    """Names of the backbone's tensors that one step of training changes; counters are none."""
    network = detector.backbone.backbone
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimizer = make_optimizer(detector.train(), how)
    target = {"boxes": torch.tensor([[5.0, 5, 40, 50]]), "labels": torch.tensor([1])}
    images = [torch.rand(3, 64, 64) for _ in range(2)]
    sum(detector(images, [target, target]).values()).backward()
    optimizer.step()
    assert all(p.requires_grad for group in optimizer.param_groups for p in group["params"])
    return {
        name for name, now in network.state_dict().items() if not torch.equal(now, before[name])
    }


@pytest.mark.parametrize("stages", [0, 1, 3, 4])
@pytest.mark.parametrize("checkpointing", ["none", "full"])
def test_frozen_stages_keep_weights_and_statistics(stages: int, checkpointing: str):
    how = recipe(frozen_stages=stages, checkpointing=checkpointing)
    detector = prepared(how)
    kept = ("stem.", *(f"{part}.{i}." for part in ("stages", "norms") for i in range(stages)))
    changed = step(detector, how)
    names = detector.backbone.backbone.state_dict()
    moving = {name for name in names if not (stages and name.startswith(kept))}
    assert changed == moving
    for name, parameter in detector.backbone.backbone.named_parameters():
        assert parameter.requires_grad == (name in moving), name
        assert (parameter.grad is not None) == (name in moving), name


def test_frozen_stages_run_as_in_evaluation_and_others_do_not():
    detector = prepared(recipe(frozen_stages=2)).train()
    backbone = detector.backbone.backbone
    assert backbone.training
    assert not any(
        m.training for part in (backbone.stem, *backbone.stages[:2]) for m in part.modules()
    )
    assert all(m.training for part in backbone.stages[2:] for m in part.modules())
    assert not any(m.training for m in detector.eval().modules())


def test_kept_statistics_stay_and_weights_learn():
    how = recipe(norm_eval=True)
    detector = prepared(how)
    changed = step(detector, how)
    statistics = {
        name
        for name in detector.backbone.backbone.state_dict()
        if name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    }
    assert statistics
    assert changed == set(detector.backbone.backbone.state_dict()) - statistics
    norms = [m for m in detector.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(norm.training for norm in norms)
    assert detector.backbone.backbone.stages[0].training


def test_a_branch_is_dropped_beside_kept_statistics():
    detector = prepared(recipe(norm_eval=True, drop_path=0.9)).train()
    block = detector.backbone.backbone.stages[3][0]
    x = torch.rand(200, 64, 4, 4)
    with torch.no_grad():
        skipped = block.relu(block.downsample(x))
        same = (block(x) - skipped).flatten(1).abs().amax(dim=1) < 1e-6
        assert same.float().mean().item() == pytest.approx(0.9, abs=0.07)
        detector.eval()
        assert not torch.allclose(block(x), skipped)


@pytest.mark.parametrize(
    ("text", "keys", "words"),
    [
        ("C1-C1-C1-C1@16", {"frozen_stages": 3}, r"stages\.2\..* is not in the file"),
        ("C1-C1-T1-C1@16,32,64,64", {"frozen_stages": 4}, r"got 4, and stages\.3\..* does not fit"),
        ("T1-T1-T1-T1@16", {"norm_eval": True}, "stem.norm.running_mean is not in the file"),
    ],
)
def test_what_is_not_trained_must_be_in_the_file(
    tmp_path: Path, text: str, keys: dict[str, Any], words: str
):
    path = tmp_path / "w.pt"
    torch.save(build_backbone(Layout.parse(text)).state_dict(), path)
    with pytest.raises(SpecError, match=words):
        load_weights(build_backbone(LAYOUT), recipe(weights=str(path), **keys))
    load_weights(build_backbone(LAYOUT), recipe(weights=str(path)))


def test_output_norms_that_classifiers_lack_may_be_missing(tmp_path: Path):
    state = build_backbone(LAYOUT).state_dict()
    torch.save({k: v for k, v in state.items() if not k.startswith("norms.")}, tmp_path / "w.pt")
    report = load_weights(
        build_backbone(LAYOUT), recipe(weights=str(tmp_path / "w.pt"), frozen_stages=4)
    )
    assert report.missing == ("norms.2.weight", "norms.2.bias")
