"""Activation checkpointing changes what is kept, and nothing else."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
from torch import nn

from nas.config.sections import DetectorSpec
from nas.models.activation_checkpointing import checkpoint_blocks
from nas.models.backbones import build_backbone
from nas.models.detectors import build_detector
from search_spaces.layout import Layout


@pytest.mark.parametrize("kept", ["light", "full"])
def test_outputs_gradients_and_statistics_are_those_without(kept: str):
    torch.manual_seed(0)
    plain = build_backbone(Layout.parse("C2-C1-T2-C2@16")).train()
    checkpointed = copy.deepcopy(plain)
    checkpoint_blocks(checkpointed, kept)
    images = torch.rand(2, 3, 64, 96)
    for network in (plain, checkpointed):
        sum(x.square().mean() for x in network(images)).backward()
    gradients = {name: parameter.grad for name, parameter in plain.named_parameters()}
    for name, parameter in checkpointed.named_parameters():
        assert torch.equal(parameter.grad, gradients[name]), name
    states = plain.state_dict()
    assert {name for name in states if "running" in name or "tracked" in name}
    for name, state in checkpointed.state_dict().items():
        assert torch.equal(state, states[name]), name
    with torch.no_grad():
        assert all(
            torch.equal(a, b) for a, b in zip(plain(images), checkpointed(images), strict=True)
        )


def test_blocks_do_run_twice():
    network, calls = build_backbone(Layout.parse("C1-C1-T1-T1@16")).train(), []
    checkpoint_blocks(network, "full")
    network.stages[0][0].conv1.register_forward_hook(lambda *_: calls.append("conv"))
    network.stages[2].blocks[0].norm1.register_forward_hook(lambda *_: calls.append("norm"))
    loss = sum(x.mean() for x in network(torch.rand(1, 3, 64, 64)))
    assert calls == ["conv", "norm"]
    loss.backward()
    assert calls == ["conv", "norm", "norm", "conv"]


def test_light_runs_no_product_twice():
    network, calls = (
        build_detector(
            Layout.parse("T2-T1-T1-T1@16"), DetectorSpec(name="fcos", channels=32), 3
        ).train(),
        Counter(),
    )
    checkpoint_blocks(network, "light")
    products = (nn.Linear, nn.Conv2d)
    for module in network.modules():
        kind = "product" if isinstance(module, products) else type(module).__name__
        module.register_forward_hook(
            lambda *_, kind=kind: calls.update([kind])
        )  # not reached by what ends early
    maps = network.backbone.backbone(torch.rand(1, 3, 64, 64))
    outputs = network.head([torch.rand(1, 32, 8, 8, requires_grad=True) for _ in range(5)])
    forward = calls.copy()
    (sum(x.mean() for x in maps) + sum(x.mean() for x in outputs.values())).backward()
    assert calls["product"] == forward["product"] > 40
    assert calls["GELU"] == 2 * forward["GELU"] == 10
    assert (
        calls["GroupNorm"] == 2 * forward["GroupNorm"] - 2 * 5
    )  # the last one of each tower on each level is kept


def test_light_keeps_half_of_what_swin_keeps():
    def kept_bytes(how: str) -> int:
        backbone, sizes = build_backbone(Layout.parse("T2-T1-T1-T1@32")).train(), {}
        checkpoint_blocks(backbone, how)

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            maps = backbone(torch.rand(1, 3, 112, 112))
        assert len(maps) == 4
        weights = {p.untyped_storage().data_ptr() for p in backbone.parameters()}
        return sum(size for pointer, size in sizes.items() if pointer not in weights)

    assert kept_bytes("light") < 0.6 * kept_bytes("none")
