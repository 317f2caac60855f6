"""Compiled blocks compute what the others do."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from nas.config.recipe import Recipe
from nas.config.sections import CalibrationSpec, DetectorSpec
from nas.data.validation import check_split
from nas.errors import SpecError
from nas.models.backbones import build_backbone
from nas.models.compile import compile_blocks
from nas.training.candidate import Candidate, train_candidate
from search_spaces.layout import Layout


def test_without_a_compiler_it_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        SpecError, match="needs a C\\+\\+ compiler: there is no 'no-such-compiler' here"
    ):
        compile_blocks(build_backbone(Layout.parse("C1-C1-C1-C1@16")))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_outputs_and_gradients_are_those_without_for_images_of_all_sizes():
    torch.manual_seed(0)
    plain = build_backbone(Layout.parse("C2-T2-T1-C1@16")).double().train()
    compiled = copy.deepcopy(plain)
    compile_blocks(compiled)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    # The windows of 7 fit exactly, not at all, in one direction, and into a map of one window.
    for height, width in ((112, 224), (96, 160), (160, 96), (64, 416), (48, 48)):
        images = torch.rand(2, 3, height, width, dtype=torch.float64)
        for network in (plain, compiled):
            network.zero_grad()
            sum(x.square().mean() for x in network(images)).backward()
        expected = {name: parameter.grad for name, parameter in plain.named_parameters()}
        largest = max(gradient.abs().max() for gradient in expected.values())
        for name, parameter in compiled.named_parameters():
            torch.testing.assert_close(
                parameter.grad, expected[name], rtol=1e-9, atol=1e-12 * float(largest)
            )
    compiled.load_state_dict(plain.state_dict())
    with torch.no_grad():  # runs as written, to the bit
        assert all(
            torch.equal(a, b)
            for a, b in zip(plain.eval()(images), compiled.eval()(images), strict=True)
        )
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("detector", ["fcos", "faster_rcnn"])
def test_a_candidate_trains_as_without(tmp_path: Path, digits: Path, detector: str):
    """One epoch: after more, rounding has changed which regions a two-stage detector samples."""
    splits = [check_split(digits, split).split for split in ("train", "val")]
    losses = []
    for compiled in (False, True):
        recipe = Recipe(
            epochs=1, image_size=48, batch=4, lr=1e-4, schedule="constant", compile=compiled
        )
        candidate = Candidate(
            layout=Layout.parse("C1-C1-T2-T1@16"),
            detector=DetectorSpec(name=detector, channels=32, hidden=64),
            recipe=recipe,
            calibration=CalibrationSpec(),
            num_classes=10,
            seed=0,
            folder=tmp_path / str(compiled),
        )
        losses.append([report.loss for report in train_candidate(candidate, *splits)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
