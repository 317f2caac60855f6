"""The pieces that a detector's training step is made of, in the order in which it runs them.

Pieces with equal keys are equal, whatever layout they stand in: blocks of one stage, most of all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nas.config.sections import DetectorSpec
from nas.models.backbones.hybrid import dense_join
from nas.models.backbones.resnet_stage import ConvStage
from nas.models.backbones.stems import make_stem
from nas.models.backbones.swin_stage import PatchMerging, SwinBlock
from nas.models.detectors import DETECTORS, build_detector
from nas.models.necks.pyramid import make_neck
from nas.profiling.memory.loss_bounds import bounded_loss
from search_spaces.layout import Layout


@dataclass(frozen=True)
class Segment:
    """A piece of a network: the part of the estimate that it counts in, what it is, and how to make
    it.
    """

    part: str
    key: tuple[Any, ...]
    build: Callable[[], nn.Module] = field(compare=False)


def stem_unit(layout: Layout) -> Segment:
    """From the image to the first stage."""
    key = (layout.stem, layout.stem_width, layout.norm)
    return Segment("stem", key, lambda: make_stem(layout.stem, layout.stem_width or 0, layout.norm))


def stage_units(layout: Layout, index: int) -> list[Segment]:
    """The blocks of a stage, behind the patch merging of a T stage."""
    stage, part = layout.stages[index], f"stage_{index + 1}"
    in_width = (
        sum(layout.widths[:index][0 if layout.dense else -1 :]) if index else layout.stem_width
    )
    assert in_width
    if stage.kind == "C":
        widths = [in_width, *[stage.width] * (stage.depth - 1)]
        strides = [2 if index else 1, *[1] * (stage.depth - 1)]
        return [
            _conv(part, width, stage.width, stride, layout.norm)
            for width, stride in zip(widths, strides, strict=True)
        ]
    shifts = [layout.window // 2 * (block % 2) for block in range(stage.depth)]
    blocks = [
        _swin(part, stage.width, layout.heads(index), layout.window, shift, layout.mlp_ratio)
        for shift in shifts
    ]
    return [_merging(part, in_width, stage.width), *blocks] if index else blocks


def join_unit(index: int) -> Segment:
    """From a stage's output, and what that stage was given, to what the next one is given."""
    return Segment(f"stage_{index + 1}", ("join",), _Join)


def norm_unit(layout: Layout, index: int, *, frozen: bool) -> Segment:
    """The output norm of a T stage."""
    width = layout.stages[index].width
    return Segment(
        f"stage_{index + 1}",
        ("norm", width, frozen),
        lambda: ChannelsLast(nn.LayerNorm(width).requires_grad_(not frozen)),
    )


def neck_unit(layout: Layout, detector: DetectorSpec) -> Segment:
    """From the maps that the detector uses to its pyramid."""
    dims = DETECTORS[detector.name].neck
    widths = layout.widths[dims["first"] :]
    key = ("neck", detector.neck, widths, detector.channels, dims["extra"])
    return Segment(
        "neck",
        key,
        lambda: _Neck(make_neck(detector.neck, widths, detector.channels, dims["extra"])),
    )


def head_unit(
    detector: DetectorSpec, num_classes: int, batch_shape: tuple[int, ...], boxes_per_image: int
) -> Segment:
    """From the pyramid to the loss; what backbone there is behind does not matter."""
    key = (
        "head",
        *sorted(detector.model_dump().items()),
        num_classes,
        batch_shape,
        boxes_per_image,
    )
    return Segment("head", key, lambda: _Head(detector, num_classes, batch_shape, boxes_per_image))


def _conv(part: str, in_width: int, width: int, stride: int, norm: str) -> Segment:
    key = ("conv", in_width, width, stride, norm)
    return Segment(
        part,
        key,
        lambda: ConvStage(in_width=in_width, width=width, depth=1, stride=stride, norm=norm)[0],
    )


def _merging(part: str, in_width: int, width: int) -> Segment:
    return Segment(
        part, ("merging", in_width, width), lambda: ChannelsLast(PatchMerging(in_width, width))
    )


def _swin(part: str, width: int, count: int, window: int, shift: int, mlp_ratio: float) -> Segment:
    key = ("swin", width, count, window, shift, mlp_ratio)
    return Segment(
        part, key, lambda: ChannelsLast(SwinBlock(width, count, window, shift, mlp_ratio))
    )


class ChannelsLast(nn.Module):
    """A module of channels-last maps, on maps [B, C, H, W]."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Join(nn.Module):
    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        return dense_join(x, before)


class _Neck(nn.Module):
    def __init__(self, pyramid: nn.Module) -> None:
        super().__init__()
        self.pyramid = pyramid

    def forward(self, *maps: Tensor) -> list[Tensor]:
        return list(self.pyramid({str(level): x for level, x in enumerate(maps)}).values())


class _Head(nn.Module):
    def __init__(
        self,
        detector: DetectorSpec,
        num_classes: int,
        batch_shape: tuple[int, ...],
        boxes_per_image: int,
    ) -> None:
        super().__init__()
        whole = build_detector(Layout.parse("C1-C1-C1-C1@4"), detector, num_classes)
        self.heads = nn.ModuleList(whole.heads())
        images = torch.empty(batch_shape, device="meta")
        self.loss = lambda levels: bounded_loss(whole, levels, images, boxes_per_image)

    def forward(self, *levels: Tensor) -> Tensor:
        return self.loss(levels)
