"""The bidirectional feature pyramid by its equations, and under detectors of both kinds."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nas.config.sections import DetectorSpec
from nas.models.detectors import build_detector
from nas.models.necks.bifpn import EPS, BiFpn
from search_spaces.layout import Layout


def test_bifpn_by_its_equations():
    torch.manual_seed(0)
    neck = BiFpn([6, 10, 20], 32, extra=2)
    with torch.no_grad():
        for parameter in neck.parameters():
            if parameter.ndim == 1:
                parameter.copy_(torch.rand_like(parameter) - 0.1)  # a few weights are negative
    maps = {
        str(i): torch.randn(1, width, size, size)
        for i, (width, size) in enumerate(((6, 20), (10, 10), (20, 5)))
    }
    found = neck(maps)

    def pooled(x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 2, 1)

    def fused(fusion: torch.nn.Module, *inputs: Tensor) -> Tensor:
        weights = fusion.weights.clamp(min=0)
        total = torch.stack([w * x for w, x in zip(weights, inputs, strict=True)]).sum(dim=0) / (
            weights.sum() + EPS
        )
        return fusion.convolution(total * total.sigmoid())

    levels = list(maps.values())
    levels += [pooled(levels[-1]), pooled(pooled(levels[-1]))]
    assert [x.shape[-1] for x in levels] == [20, 10, 5, 3, 2]
    p3, p4, p5, p6, p7 = (lateral(x) for lateral, x in zip(neck.lateral, levels, strict=True))
    for layer in neck.layers:
        t6 = fused(layer.down[3], p6, F.interpolate(p7, size=3))
        t5 = fused(layer.down[2], p5, F.interpolate(t6, size=5))
        t4 = fused(layer.down[1], p4, F.interpolate(t5, size=10))
        o3 = fused(layer.down[0], p3, F.interpolate(t4, size=20))
        o4 = fused(layer.up[0], pooled(o3), t4, p4)
        o5 = fused(layer.up[1], pooled(o4), t5, p5)
        o6 = fused(layer.up[2], pooled(o5), t6, p6)
        o7 = fused(layer.up[3], pooled(o6), p7)
        p3, p4, p5, p6, p7 = o3, o4, o5, o6, o7
    for mine, wanted in zip(found.values(), (p3, p4, p5, p6, p7), strict=True):
        assert torch.allclose(mine, wanted, atol=1e-4)


@pytest.mark.parametrize("detector", ["fcos", "faster_rcnn"])
def test_every_parameter_gets_a_gradient(detector: str):
    torch.manual_seed(0)
    spec = DetectorSpec(name=detector, channels=32, hidden=32, neck="bifpn")
    network = build_detector(Layout.parse("C1-C1-T1-T1@16"), spec, num_classes=3).train()
    boxes = torch.tensor([[5.0, 5, 25, 20], [20, 30, 90, 95], [0, 0, 120, 120], [2, 2, 250, 250]])
    assert len(network.backbone(torch.rand(1, 3, 160, 160))) == 5
    sum(
        network(
            [torch.rand(3, 256, 256)], [{"boxes": boxes, "labels": torch.tensor([1, 3, 2, 2])}]
        ).values()
    ).backward()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
