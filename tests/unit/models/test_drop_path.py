"""Stochastic depth: how often which branch is left out, and what it leaves alone."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.resnet import Bottleneck

from nas.models.activation_checkpointing import checkpoint_blocks
from nas.models.backbones import build_backbone
from nas.models.backbones.swin_stage import SwinBlock
from nas.models.drop_path import set_drop_path_
from search_spaces.layout import Layout


def backbone(rate: float, layout: str = "C1-C2-T1-T2@16+norm=gn") -> torch.nn.Module:
    torch.manual_seed(0)
    network = build_backbone(Layout.parse(layout))
    set_drop_path_(network, rate)
    return network


def test_rates_grow_with_depth_from_none():
    blocks = [m for m in backbone(0.5).modules() if isinstance(m, (SwinBlock, Bottleneck))]
    assert [block.drop_path for block in blocks] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_evaluation_is_as_without(rate: float):
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        for mine, plain in zip(
            backbone(rate).eval()(images), backbone(0).eval()(images), strict=True
        ):
            assert torch.equal(mine, plain)


@pytest.mark.parametrize("kind", ["C1-C1-C1-C2@16+norm=gn", "T1-T1-T1-T2@16"])
def test_a_branch_is_left_out_of_as_many_images_as_asked(kind: str):
    """Of the last block, whose input is then its output."""
    network = backbone(0.5, kind).train()
    last = [m for m in network.modules() if isinstance(m, (SwinBlock, Bottleneck))][-1]
    shape = (400, 4, 4, 128) if isinstance(last, SwinBlock) else (400, 128, 4, 4)
    x = torch.rand(shape) + 0.1
    with torch.no_grad():
        same = (last(x) - x).flatten(1).abs().amax(dim=1) < 1e-6
    expected = 0.25 if isinstance(last, SwinBlock) else 0.5  # both branches of a Swin block
    assert same.float().mean().item() == pytest.approx(expected, abs=0.07)


@pytest.mark.parametrize("kept", ["light", "full"])
@pytest.mark.parametrize("kind", ["C1-C1-C1-C2@16+norm=gn", "T1-T1-T1-T2@16"])
def test_gradients_are_those_without_checkpointing(kind: str, kept: str):
    """The second run leaves out what the first has left out."""
    gradients = []
    for how in ("none", kept):
        network = backbone(0.5, kind).train()
        checkpoint_blocks(network, how)
        torch.manual_seed(1)
        sum(level.square().mean() for level in network(torch.ones(8, 3, 64, 64))).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-7)
