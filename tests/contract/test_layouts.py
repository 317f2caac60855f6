"""Every layout of the grammar becomes a network that keeps one contract."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from nas.models.backbones import build_backbone
from search_spaces.layout import Layout

PATTERNS = ["".join(kinds) for kinds in itertools.product("CT", repeat=4)]
VARIANTS = [
    "@8",
    "@12",
    "@20,16,40,24",
    "@16+window=4+mlp_ratio=1.5",
    "@16+stem=patch+norm=gn",
    "@16+stem=resnet+head_dim=8",
    "@16+stem=dsod+dense=true",
]


def layouts() -> list[str]:
    """All sixteen patterns, and every variant on the four that mix kinds in different ways."""
    plain = [
        "-".join(f"{kind}{depth}" for kind, depth in zip(p, (2, 1, 3, 2), strict=True)) + "@16"
        for p in PATTERNS
    ]
    mixed = [
        text + variant
        for text in ("C2-C1-T2-T1", "T1-T2-T1-T1", "C1-C1-C1-C1", "T1-C2-T2-C1")
        for variant in VARIANTS
    ]
    return plain + mixed


@pytest.mark.parametrize("text", layouts())
def test_shapes_gradients_and_independence_of_the_batch(text: str):
    torch.manual_seed(0)
    layout = Layout.parse(text)
    backbone = build_backbone(layout)
    images = torch.rand(2, 3, 70, 101)
    maps = backbone(images)
    assert len(maps) == 4
    for x, width, stride in zip(maps, layout.widths, (4, 8, 16, 32), strict=True):
        assert x.shape == (2, width, math.ceil(70 / stride), math.ceil(101 / stride))
        assert x.isfinite().all()
    sum(x.square().mean() for x in maps).backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    backbone.eval()
    with torch.no_grad():
        together, alone = backbone(images), backbone(images[1:])
    for x, y in zip(together, alone, strict=True):
        assert torch.allclose(x[1:], y, atol=1e-4 * float(x.abs().max()))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_padding_does_not_magnify_gradients(pattern: str):
    """Batches pad smaller images with zeros, of which a layer norm may make a factor of
    1/sqrt(eps), 316, in every block.
    """
    torch.manual_seed(0)
    backbone = build_backbone(Layout.parse("-".join(f"{kind}2" for kind in pattern) + "@16"))
    norms = []
    for shown in (128, 64):
        images = torch.randn(2, 3, 128, 128)
        images[1, :, :, shown:] = 0
        backbone.zero_grad()
        sum((x * torch.randn_like(x)).mean() for x in backbone(images)).backward()
        norms.append(
            torch.stack([parameter.grad.norm() for parameter in backbone.parameters()]).norm()
        )
    assert norms[1] < 30 * norms[0]


@pytest.mark.parametrize("size", [(32, 32), (1, 1), (4, 300), (224, 7)])
def test_any_size(size: tuple[int, int]):
    for text in (
        "T2-T2-T2-T2@16",
        "C1-C1-T2-T2@16",
        "T1-C1-T2-C1@16",
        "T1-C1-T1-C1@16+stem=dsod+dense=true",
    ):
        with torch.no_grad():
            maps = build_backbone(Layout.parse(text)).eval()(torch.rand(1, 3, *size))
        assert [x.shape[2:] for x in maps] == [
            tuple(math.ceil(side / s) for side in size) for s in (4, 8, 16, 32)
        ]
        assert all(x.isfinite().all() for x in maps)


def test_he_initialisation():
    torch.manual_seed(0)
    backbone = build_backbone(Layout.parse("C2-C2-T6-T2"))
    for name, parameter in backbone.named_parameters():
        if parameter.ndim > 1 and not name.endswith("position_table"):
            expected = math.sqrt(2 / parameter[0].numel())
            assert abs(parameter.std().item() / expected - 1) < 0.03, name
            assert (
                abs(parameter.mean().item())
                < 0.02 * expected * math.sqrt(1e4 / parameter.numel()) + 0.01 * expected
            ), name
        elif name.endswith("bias"):
            assert not parameter.any(), name
        elif name.endswith("position_table"):
            assert 0.017 < parameter.std().item() < 0.023, name
        else:
            assert torch.equal(parameter, torch.ones_like(parameter)), name
