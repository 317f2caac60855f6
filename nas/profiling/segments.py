"""The pieces that a detector is made of, cut so that most layouts share them.

Segments with equal keys are equal, whatever layout they stand in: blocks of one stage, most of all.
What one costs, for inputs of one shape, has to be found out once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from nas.config.sections import DetectorSpec
from nas.models.backbones.graph import Node
from nas.models.backbones.hybrid import DenseJoin
from nas.models.backbones.resnet_stage import bottleneck, bottleneck_dims
from nas.models.backbones.stems import make_stem
from nas.models.backbones.swin_stage import PatchMerging, SwinBlock, SwinDims, swin_dims
from nas.models.detectors import DETECTORS
from nas.models.drop_path import blocks_of, drop_branch_
from nas.models.necks.pyramid import make_neck
from search_spaces.layout import Layout

SMALLEST = Layout.parse("C1-C1-C1-C1@4")  # for heads, which do not depend on the backbone
ANY_SHARE = 0.5  # of the images that a branch is left out of: none costs more than another


@dataclass(frozen=True)
class Segment:
    """A piece of a network whose maps are [B, C, H, W].

    Args:
        part: of the network: `stem`, `stage_1` to `stage_4`, `neck` or `head`.
        key: what decides about everything in it.
        build: makes it, with fresh weights.
    """

    part: str
    key: tuple[Any, ...]
    build: Callable[[], nn.Module] = field(compare=False)


def backbone_segments(
    layout: Layout, node: Node, *, trained: bool = True, drop_path: bool = False
) -> list[Segment]:
    """The segments, in order, that one step of a layout's backbone runs; none for the identity
    behind a C stage.

    Args:
        layout: the backbone.
        node: one of its `layout_graph`.
        trained: whether its parameters get gradients.
        drop_path: whether the branches of all blocks but the backbone's first are left out of some
            images; how often makes no difference to what they cost.
    """
    if node.kind == "stem":
        key = (layout.stem, node.width, layout.norm)
        return [Segment("stem", key, partial(make_stem, *key))]
    part = f"stage_{node.stage + 1}"
    if node.kind == "join":
        return [Segment(part, ("join",), DenseJoin)]
    if node.kind == "stage":
        blocks = _conv_blocks if layout.stages[node.stage].kind == "C" else _swin_blocks
        segments = blocks(part, layout, node)
        return _with_drop_path(segments, node) if drop_path else segments
    if layout.stages[node.stage].kind == "C":
        return []
    return [Segment(part, ("norm", node.width, trained), lambda: _norm(node.width, trained))]


def frozen(segment: Segment) -> Segment:
    """Make the same segment without gradients for its parameters."""

    def build() -> nn.Module:
        return segment.build().requires_grad_(False)

    return replace(segment, key=("frozen", *segment.key), build=build)


def neck_segment(widths: tuple[int, ...], detector: DetectorSpec) -> Segment:
    """The neck of a detector, from the maps that it uses to its pyramid.

    Args:
        widths: channels of all four maps of the backbone.
        detector: which one.
    """
    dims = DETECTORS[detector.name].neck
    args = (detector.neck, widths[dims["first"] :], detector.channels, dims["extra"])
    return Segment("neck", ("neck", *args), lambda: _Neck(make_neck(*args)))


def _conv_blocks(part: str, layout: Layout, node: Node) -> list[Segment]:
    blocks = bottleneck_dims(
        in_width=node.in_widths[0],
        width=node.width,
        depth=layout.stages[node.stage].depth,
        stride=node.stride,
        norm=layout.norm,
    )
    return [Segment(part, ("conv", *dims), partial(bottleneck, dims)) for dims in blocks]


def _swin_blocks(part: str, layout: Layout, node: Node) -> list[Segment]:
    depth, heads = layout.stages[node.stage].depth, layout.heads(node.stage)
    (in_width,), width = node.in_widths, node.width
    merging = Segment(
        part,
        ("merging", in_width, width),
        lambda: ChannelsLast(PatchMerging(in_width, width)),
    )
    blocks = [
        Segment(part, ("swin", *dims), partial(_swin, dims))
        for dims in swin_dims(width, depth, heads, layout.window, layout.mlp_ratio)
    ]
    return [merging, *blocks] if node.stride == 2 else blocks


def _with_drop_path(segments: list[Segment], node: Node) -> list[Segment]:
    """The segments of a stage, the blocks among them left out of some images."""
    first = node.stage == 0 or segments[0].key[0] == "merging"  # the backbone's first block stays
    return [*segments[:first], *map(_dropped, segments[first:])]


def _dropped(segment: Segment) -> Segment:
    def build() -> nn.Module:
        module = segment.build()
        for block in blocks_of(module):
            drop_branch_(block, ANY_SHARE)
        return module

    return replace(segment, key=(*segment.key, "drop_path"), build=build)


def _swin(dims: SwinDims) -> nn.Module:
    return ChannelsLast(SwinBlock(dims))


def _norm(width: int, trained: bool) -> nn.Module:
    return ChannelsLast(nn.LayerNorm(width).requires_grad_(trained))


class ChannelsLast(nn.Module):
    """A module of maps [B, H, W, C], on maps [B, C, H, W]."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.inner(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return maps


class _Neck(nn.Module):
    def __init__(self, pyramid: nn.Module) -> None:
        super().__init__()
        self.pyramid = pyramid

    def forward(self, *maps: Tensor) -> list[Tensor]:
        return list(self.pyramid({str(level): x for level, x in enumerate(maps)}).values())
