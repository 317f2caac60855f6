"""Files of torchvision's and timm's classifiers in our backbones: equal feature maps, in mixed
layouts where they have them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from helpers.networks import outputs_of, randomize
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import resnet50, swin_t

from nas.models.backbones import HybridBackbone, build_backbone
from nas.models.weights import WeightsReport, load_backbone_weights
from search_spaces.layout import Layout

SWIN, RESNET = "T2-T2-T6-T2", "C3-C4-C6-C3@256"
SWIN_NORMS = tuple(f"norms.{stage}.{leaf}" for stage in range(3) for leaf in ("weight", "bias"))


def timm_model(name: str) -> nn.Module:
    return pytest.importorskip("timm").create_model(name, pretrained=False)


MAKERS: dict[str, Callable[[], nn.Module]] = {
    "torchvision Swin": lambda: swin_t(weights=None),
    "timm Swin": lambda: timm_model("swin_tiny_patch4_window7_224"),
    "torchvision ResNet": lambda: resnet50(weights=None),
    "timm ResNet": lambda: timm_model("resnet50"),
}


@cache
def theirs(name: str) -> nn.Module:
    network = MAKERS[name]().eval()
    with torch.no_grad():
        randomize(network)
    return network


def stages(network: nn.Module) -> list[nn.Module]:
    """The modules whose outputs are the four feature maps."""
    if hasattr(network, "features"):
        return [network.features[index] for index in (1, 3, 5, 7)]
    if hasattr(network, "layers"):
        return list(network.layers)
    return [network.layer1, network.layer2, network.layer3, network.layer4]


def loaded(
    layout: str, path: Path, state: dict[str, Tensor]
) -> tuple[HybridBackbone, WeightsReport]:
    """A network from a file, its other tensors random."""
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    ours = build_backbone(Layout.parse(layout)).eval()
    with torch.no_grad():
        randomize(ours, seed=1)
    return ours, load_backbone_weights(ours, path)


def images() -> Tensor:
    return torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))


def old_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's before it moved a stage's merging from the end of the one before to its own
    beginning.
    """
    return {
        re.sub(
            r"layers\.(\d)\.downsample",
            lambda match: f"layers.{int(match[1]) - 1}.downsample",
            name,
        ): tensor
        for name, tensor in state.items()
    }


def assert_maps_equal_swin(ours: HybridBackbone, network: nn.Module) -> None:
    for mine, yours, norm in zip(
        ours(images()), outputs_of(network, stages(network), images()), ours.norms, strict=True
    ):
        assert (mine - norm(yours).permute(0, 3, 1, 2)).abs().max() < 1e-5
    (last,) = outputs_of(network, [network.norm], images())
    assert (mine - last.permute(0, 3, 1, 2)).abs().max() < 1e-5


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("source", ["torchvision Swin", "timm Swin"])
@torch.no_grad()
def test_swin_t(tmp_path: Path, source: str, suffix: str):
    ours, report = loaded(SWIN, tmp_path / f"swin{suffix}", theirs(source).state_dict())
    assert_maps_equal_swin(ours, theirs(source))
    assert report.source == source
    assert (report.missing, report.unused, report.misfits) == (SWIN_NORMS, (), ())
    assert len(report.loaded) == 171
    assert (
        report.summary()
        == f"taken over 171 of 177 tensors from {source}; not in the file: norms.0 (+2)"
    )


@torch.no_grad()
def test_swin_t_in_timms_older_names(tmp_path: Path):
    from timm.models.swin_transformer import checkpoint_filter_fn

    network = theirs("timm Swin")
    state = old_names(network.state_dict())
    # As the published code has them, which keeps what follows from the window.
    buffers = {"layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49)}
    buffers["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(
        49, 49, dtype=torch.long
    )
    renamed = checkpoint_filter_fn({**state, **buffers}, network)
    assert all(
        torch.equal(renamed[name], tensor)
        for name, tensor in network.state_dict().items()
        if "head" not in name
    )
    ours, report = loaded(SWIN, tmp_path / "swin.pth", {"model": {**state, **buffers}})
    assert_maps_equal_swin(ours, network)
    assert (report.source, len(report.loaded)) == ("timm Swin with older names", 171)
    assert (report.missing, report.unused, report.misfits) == (SWIN_NORMS, (), ())


@torch.no_grad()
def test_swin_t_from_timms_feature_extractor(tmp_path: Path):
    state = {
        re.sub(r"layers\.(\d)", r"layers_\1", name): t
        for name, t in theirs("timm Swin").state_dict().items()
    }
    extractor = (
        pytest.importorskip("timm")
        .create_model("swin_tiny_patch4_window7_224", features_only=True)
        .eval()
    )
    assert extractor.state_dict().keys() == {
        name for name in state if not name.startswith(("norm.", "head."))
    }
    extractor.load_state_dict(state, strict=False)
    ours, report = loaded(SWIN, tmp_path / "swin.pt", extractor.state_dict())
    for mine, yours, norm in zip(ours(images()), extractor(images()), ours.norms, strict=True):
        assert (mine - norm(yours).permute(0, 3, 1, 2)).abs().max() < 1e-5
    assert report.missing == (*SWIN_NORMS, "norms.3.weight", "norms.3.bias")


@pytest.mark.parametrize("source", ["torchvision ResNet", "timm ResNet"])
@torch.no_grad()
def test_resnet_50(tmp_path: Path, source: str):
    network = theirs(source)
    network.bn1.num_batches_tracked.fill_(7)
    ours, report = loaded(RESNET, tmp_path / "resnet.safetensors", network.state_dict())
    for mine, yours in zip(
        ours(images()), outputs_of(network, stages(network), images()), strict=True
    ):
        assert (mine - yours).abs().max() / yours.abs().max() < 1e-5
    assert ours.stem.norm.num_batches_tracked == 7
    assert (report.missing, report.unused, report.misfits) == ((), (), ())
    assert len(report.loaded) == 265  # 53 convolutions, 53 norms of four tensors
    assert report.summary() == "taken over 265 of 265 tensors from torchvision or timm ResNet"


@torch.no_grad()
def test_a_mixed_layout_takes_its_c_stages_from_a_resnet(tmp_path: Path):
    network = theirs("torchvision ResNet")
    ours, report = loaded("C3-C4-T2-T2@256", tmp_path / "resnet.pth", network.state_dict())
    for mine, yours in zip(
        ours(images())[:2], outputs_of(network, stages(network), images())[:2], strict=True
    ):
        assert (mine - yours).abs().max() / yours.abs().max() < 1e-5
    names = [name for name in ours.state_dict() if not name.endswith("num_batches_tracked")]
    assert list(report.loaded) == [name for name in names if re.match(r"stem|stages\.[01]", name)]
    assert list(report.missing) == [name for name in names if re.match(r"norms|stages\.[23]", name)]
    assert {re.match(r"layer\d", name)[0] for name in report.unused} == {"layer3", "layer4"}
    assert report.misfits == ()
    assert "; not in the file: stages.2.merging.norm (+" in report.summary()
    assert "; has no place: layer3.0.conv1 (+" in report.summary()


@torch.no_grad()
def test_a_narrower_layout_takes_only_the_stem(tmp_path: Path):
    _, report = loaded(
        "C2-C2-T12-T4", tmp_path / "resnet.pth", theirs("torchvision ResNet").state_dict()
    )
    stem = [f"stem.norm.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var")]
    assert list(report.loaded) == ["stem.conv.weight", *stem]
    assert report.misfits[0] == ("stages.0.0.conv1.weight", (64, 64, 1, 1), (24, 64, 1, 1))
    assert (
        "; does not fit: stages.0.0.conv1.weight [64, 64, 1, 1] instead of [24, 64, 1, 1] (+"
        in report.summary()
    )


@torch.no_grad()
def test_a_mixed_layout_takes_its_t_stages_from_a_swin(tmp_path: Path):
    network = theirs("torchvision Swin")
    ours, report = loaded("C2-C2-T12-T4", tmp_path / "swin.pth", network.state_dict())
    x = torch.rand(1, 28, 28, 192, generator=torch.Generator().manual_seed(1))
    for stage, (merging, blocks) in {
        2: (network.features[4], network.features[5]),
        3: network.features[6:8],
    }.items():
        y = ours.stages[stage].blocks[: len(blocks)](ours.stages[stage].merging(x))
        x = blocks(merging(x))
        assert (y - x).abs().max() < 1e-5
    assert (ours.norms[3](y) - network.norm(x)).abs().max() < 1e-5
    assert {name for name in report.missing if name.startswith("stages.3")} == {
        name for name in ours.state_dict() if re.match(r"stages\.3\.blocks\.[23]", name)
    }
    assert "features.1.0.norm1.weight" in report.unused
    assert [name for name, *_ in report.misfits] == [
        "stem.conv.weight",
        "stem.norm.weight",
        "stem.norm.bias",
    ]
