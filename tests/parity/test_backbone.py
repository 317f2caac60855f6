"""The backbone against torchvision's and timm's, and mixed layouts against torchvision's blocks,
with equal weights.
"""

from __future__ import annotations

import re

import pytest
import torch
from helpers.networks import randomize
from torch import Tensor, nn
from torchvision.models import ResNet, SwinTransformer, resnet50
from torchvision.models.swin_transformer import PatchMerging, SwinTransformerBlock

from nas.models.backbones import HybridBackbone, build_backbone
from search_spaces.layout import Layout

SIZES = [(224, 224), (199, 230), (65, 33), (160, 213)]


def block_name(name: str) -> str:
    """Our name of a Swin block's tensor, torchvision's."""
    return name.replace("attn.relative_position_bias_table", "attention.position_table").replace(
        "attn.", "attention."
    )


def load_swin(ours: HybridBackbone, theirs: SwinTransformer) -> None:
    """torchvision's features 0 is the stem, odd ones are stages, even ones the merging in front of
    a stage.
    """
    stem = {"0": "stem.conv", "2": "stem.norm"}
    state = {}
    for name, tensor in theirs.features.state_dict().items():
        index, rest = name.split(".", 1)
        stage = (int(index) - 1) // 2
        if index == "0":
            part, leaf = rest.split(".")
            state[f"{stem[part]}.{leaf}"] = tensor
        elif int(index) % 2:
            state[f"stages.{stage}.blocks.{block_name(rest)}"] = tensor
        else:
            state[f"stages.{int(index) // 2}.merging.{rest}"] = tensor
    state = {
        name: tensor for name, tensor in state.items() if "relative_position_index" not in name
    }
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.startswith("norms.") for name in missing)


def swin(depths: list[int] = [2, 2, 6, 2], dim: int = 96) -> SwinTransformer:  # noqa: B006
    heads = [dim // 32 * 2**stage for stage in range(4)]
    return SwinTransformer([4, 4], dim, depths, heads, [7, 7], stochastic_depth_prob=0.0).eval()


def stage_outputs(theirs: SwinTransformer, images: Tensor) -> list[Tensor]:
    outputs, x = [], images
    for index, module in enumerate(theirs.features):
        x = module(x)
        if index % 2:
            outputs.append(x)
    return outputs


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_swin_t_equals_torchvision(size: tuple[int, int]):
    torch.manual_seed(0)
    # torchvision's stem drops the last rows of sizes that 4 does not divide, ours pads: compare on
    # what both see.
    size = tuple(side // 4 * 4 for side in size)
    theirs, ours = swin(), build_backbone(Layout.parse("T2-T2-T6-T2")).eval()
    randomize(theirs)
    load_swin(ours, theirs)
    for norm in ours.norms:
        nn.init.normal_(norm.weight)
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    expected = stage_outputs(theirs, images)
    for mine, yours, norm in zip(ours(images), expected, ours.norms, strict=True):
        difference = (mine - norm(yours).permute(0, 3, 1, 2)).abs().max()
        assert difference < 1e-5


def test_swin_gradients_equal_torchvision():
    theirs, ours = (
        swin([1, 1, 2, 1], dim=32).train(),
        build_backbone(Layout.parse("T1-T1-T2-T1@32")),
    )
    with torch.no_grad():
        randomize(theirs)
        load_swin(ours, theirs)
    images = torch.rand(2, 3, 132, 100, generator=torch.Generator().manual_seed(1))
    for network, outputs in ((ours, [x.permute(0, 2, 3, 1) for x in ours(images)]), (theirs, None)):
        outputs = outputs or [
            nn.functional.layer_norm(x, x.shape[-1:]) for x in stage_outputs(theirs, images)
        ]
        sum((x * torch.linspace(-1, 1, x.shape[-1])).square().mean() for x in outputs).backward()
        assert all(
            p.grad is not None
            for n, p in network.named_parameters()
            if not re.match(r"(norm|head)\.", n)
        )
    table = ours.stages[2].blocks[1].attention.position_table.grad
    assert torch.allclose(
        table, theirs.features[5][1].attn.relative_position_bias_table.grad, atol=1e-5
    )
    qkv = ours.stages[0].blocks[0].attention.qkv.weight.grad
    assert torch.allclose(qkv, theirs.features[1][0].attn.qkv.weight.grad, atol=1e-5)


@torch.no_grad()
def test_swin_t_equals_timm():
    timm = pytest.importorskip("timm")
    theirs = timm.create_model(
        "swin_tiny_patch4_window7_224", features_only=True, img_size=(224, 224)
    ).eval()
    ours = build_backbone(Layout.parse("T2-T2-T6-T2")).eval()
    randomize(theirs)
    state = {}
    for name, tensor in theirs.state_dict().items():
        name = name.replace("patch_embed.proj", "stem.conv").replace(
            "patch_embed.norm", "stem.norm"
        )
        name = re.sub(r"layers_(\d)\.downsample", r"stages.\1.merging", name)
        name = re.sub(r"layers_(\d)\.blocks", r"stages.\1.blocks", block_name(name))
        state[name.replace("mlp.fc1", "mlp.0").replace("mlp.fc2", "mlp.3")] = tensor
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert not [name for name in unexpected if "index" not in name and "attn_mask" not in name]
    assert all(name.startswith("norms.") for name in missing)
    images = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    for mine, yours in zip(ours(images), theirs(images), strict=True):
        expected = nn.functional.layer_norm(yours, yours.shape[-1:]).permute(0, 3, 1, 2)
        assert (mine - expected).abs().max() < 1e-5


def load_resnet(ours: HybridBackbone, theirs: ResNet) -> None:
    state = {}
    for name, tensor in theirs.state_dict().items():
        name = re.sub(r"^conv1", "stem.conv", re.sub(r"^bn1", "stem.norm", name))
        state[re.sub(r"^layer(\d)", lambda match: f"stages.{int(match[1]) - 1}", name)] = tensor
    ours.load_state_dict(
        {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    )


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_resnet_50_equals_torchvision(size: tuple[int, int]):
    theirs, ours = (
        resnet50(weights=None).eval(),
        build_backbone(Layout.parse("C3-C4-C6-C3@256")).eval(),
    )
    randomize(theirs)
    load_resnet(ours, theirs)
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images))))
    for mine, layer in zip(
        ours(images), (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4), strict=True
    ):
        x = layer(x)
        assert (mine - x).abs().max() / x.abs().max() < 1e-5


def t_block(ours: nn.Module, shift: int) -> SwinTransformerBlock:
    """torchvision's block with the weights of ours."""
    attention = ours.attention
    width = attention.proj.out_features
    theirs = SwinTransformerBlock(
        width, attention.heads, [7, 7], [shift, shift], stochastic_depth_prob=0.0
    ).eval()
    state = {
        name.replace("attention.position_table", "attn.relative_position_bias_table"): t
        for name, t in ours.state_dict().items()
    }
    theirs.load_state_dict(
        {name.replace("attention.", "attn."): t for name, t in state.items()}, strict=False
    )
    return theirs


@pytest.mark.parametrize("size", [(224, 224), (75, 101), (200, 64)])
@pytest.mark.parametrize(
    "text",
    ["C2-C1-T3-T2@32", "C1-T2-T1-T1@32", "C1-C1-C2-T3@32", "T1-C2-T2-C1@32", "T2-T1-C1-C2@32"],
)
@torch.no_grad()
def test_mixed_layouts_equal_an_assembly_of_torchvisions_blocks(text: str, size: tuple[int, int]):
    layout = Layout.parse(text)
    ours = build_backbone(layout).eval()
    randomize(ours)
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    x = ours.stem(images)
    for index, (stage, mine) in enumerate(zip(layout.stages, ours(images), strict=True)):
        network = ours.stages[index]
        if stage.kind == "C":
            assert network[0].conv2.stride == ((2, 2) if index else (1, 1))
            for block in network:  # torchvision's bottleneck, by hand
                y = block.relu(block.bn1(block.conv1(x)))
                y = block.bn3(block.conv3(block.relu(block.bn2(block.conv2(y)))))
                x = block.relu(y + (block.downsample(x) if block.downsample else x))
            expected = x
        else:
            x = x.permute(0, 2, 3, 1)
            if index:
                merging = PatchMerging(x.shape[-1])
                merging.reduction = nn.Linear(4 * x.shape[-1], stage.width, bias=False)
                merging.load_state_dict(network.merging.state_dict())
                x = merging(x)
            for number, block in enumerate(network.blocks):
                x = t_block(block, shift=3 * (number % 2))(x)
            norm = ours.norms[index]
            expected = nn.functional.layer_norm(x, x.shape[-1:], norm.weight, norm.bias).permute(
                0, 3, 1, 2
            )
            x = x.permute(0, 3, 1, 2)
        assert (mine - expected).abs().max() / expected.abs().max() < 1e-5


@torch.no_grad()
def test_a_dense_layout_equals_stages_joined_by_hand():
    torch.manual_seed(0)
    ours = build_backbone(Layout.parse("T1-C2-T1-C1@16+dense=true")).eval()
    images = torch.rand(2, 3, 75, 109)
    first = ours.stages[0](ours.stem(images))
    second = ours.stages[1](first)
    third = ours.stages[2](
        torch.cat([second, nn.functional.max_pool2d(first, 2, ceil_mode=True)], dim=1)
    )
    twice = nn.functional.max_pool2d(
        nn.functional.max_pool2d(first, 2, ceil_mode=True), 2, ceil_mode=True
    )
    joined = [third, nn.functional.max_pool2d(second, 2, ceil_mode=True), twice]
    fourth = ours.stages[3](torch.cat(joined, dim=1))
    for x, expected, norm in zip(
        ours(images), (first, second, third, fourth), ours.norms, strict=True
    ):
        assert torch.equal(x, norm(expected.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
    assert ours.stages[2].merging.reduction.in_features == 4 * (16 + 32)
    assert ours.stages[3][0].conv1.in_channels == 16 + 32 + 64


def test_dsod_stem_by_its_table():
    """DSOD, table 1: 3x3/2 of 64, 3x3 of 64, 3x3 of 128, 2x2/2 max-pool."""
    stem = build_backbone(Layout.parse("T1-T1-T1-T1@128+stem=dsod")).stem
    convolutions = [module for module in stem if isinstance(module, nn.Conv2d)]
    assert [(c.out_channels, c.kernel_size[0], c.stride[0]) for c in convolutions] == [
        (64, 3, 2),
        (64, 3, 1),
        (128, 3, 1),
    ]
    assert isinstance(stem[-1], nn.MaxPool2d)
    assert stem(torch.rand(1, 3, 224, 224)).shape == (1, 128, 56, 56)
