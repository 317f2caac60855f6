"""Activation checkpointing changes what is kept, and nothing else."""

from __future__ import annotations

import copy

import torch

from nas.backbone import build_backbone
from nas.training.checkpointing import checkpoint_blocks
from search_spaces.layout import Layout


def test_outputs_gradients_and_statistics_are_those_without():
    torch.manual_seed(0)
    plain = build_backbone(Layout.parse("C2-C1-T2-C2@16")).train()
    checkpointed = copy.deepcopy(plain)
    checkpoint_blocks(checkpointed)
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
        assert all(torch.equal(a, b) for a, b in zip(plain(images), checkpointed(images), strict=True))


def test_blocks_do_run_twice():
    network, calls = build_backbone(Layout.parse("C1-C1-T1-T1@16")).train(), []
    checkpoint_blocks(network)
    network.stages[0][0].conv1.register_forward_hook(lambda *_: calls.append("conv"))
    network.stages[2].blocks[0].norm1.register_forward_hook(lambda *_: calls.append("norm"))
    loss = sum(x.mean() for x in network(torch.rand(1, 3, 64, 64)))
    assert calls == ["conv", "norm"]
    loss.backward()
    assert calls == ["conv", "norm", "norm", "conv"]
