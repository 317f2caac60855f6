"""Parameters and multiply-adds of a candidate, counted on meta tensors, by two rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nas.config.sections import DetectorSpec
from nas.models.backbones import build_backbone
from nas.models.detectors import build_detector
from nas.models.detectors.deformable_conv import DeformableConv
from search_spaces.layout import Layout

MULTIPLY_ADD = 2  # operations, as `FlopCounterMode` counts
IMAGES = 2
SAMPLING = 4  # multiply-adds of a bilinear interpolation
RULE = (
    "fvcore's count: multiply-adds of convolutions, linear maps and attention products, and for "
    "each element 2 of a batch "
    "norm, 5 of a layer or group norm, 1 of an upsampled map; 4 for each value that a deformable "
    "convolution samples"
)
PAPER_RULE = (
    "multiply-adds of convolutions with their biases and of linear maps, 2 for each element of a "
    "norm, 1 for each of a ReLU or "
    "pooling, 4 for each value that a deformable convolution samples; not counted are attention "
    "products, synchronised norms "
    "and the linear maps of attention between proposals"
)


@dataclass(frozen=True)
class Cost:
    """Size of a network and work for one image; `flops` by `RULE`, `paper_flops` by `PAPER_RULE`,
    as the paper's tables.
    """

    params: int
    backbone_params: int
    flops: int
    paper_flops: int
    image_size: tuple[int, int]


def count_cost(
    layout: Layout, detector: DetectorSpec, num_classes: int, image_size: tuple[int, int]
) -> Cost:
    """Count a detector on one image of (height, width) pixels, multiples of 32.

    What has been counted once is added up: the neck and the heads, a backbone of one block a stage,
    one more block of each.
    """
    backbone = _count_backbone(layout.with_depths((1,) * len(layout.depths)), image_size)
    for index, stage in enumerate(layout.stages):
        if stage.depth > 1:
            backbone = backbone + (stage.depth - 1) * _count_block(
                _alike(layout, index), index, image_size
            )
    params, flops, paper_flops = backbone + _count_rest(
        _alike(layout, 0), detector, num_classes, image_size
    )
    return Cost(int(params), int(backbone[0]), int(flops), int(paper_flops), image_size)


def _alike(layout: Layout, index: int) -> Layout:
    """The layout with one block a stage, all of the kind of stage `index`: it has the same block
    there.
    """
    stages = tuple(
        replace(stage, kind=layout.stages[index].kind, depth=1) for stage in layout.stages
    )
    return replace(layout, stages=stages, stem="auto", stem_width=None)


@lru_cache(maxsize=1024)
def _count_block(layout: Layout, index: int, image_size: tuple[int, int]) -> np.ndarray:
    """Figures of one more block in a stage."""
    deeper = layout.with_depths([2 if place == index else 1 for place in range(len(layout.depths))])
    return _count_backbone(deeper, image_size) - _count_backbone(layout, image_size)


@lru_cache(maxsize=1024)
def _count_rest(
    layout: Layout, detector: DetectorSpec, num_classes: int, image_size: tuple[int, int]
) -> np.ndarray:
    """Figures of the neck and the heads, which depend on the widths of a layout only."""
    return _count_detector(layout, detector, num_classes, image_size) - _count_backbone(
        layout, image_size
    )


def _count_detector(
    layout: Layout, detector: DetectorSpec, num_classes: int, image_size: tuple[int, int]
) -> np.ndarray:
    with torch.device("meta"):
        network = build_detector(layout, detector, num_classes).eval()

    def run(images: Tensor) -> None:
        network.heads_forward(list(network.backbone(images).values()))

    return _count(network, run, image_size)


@lru_cache(maxsize=1024)
def _count_backbone(layout: Layout, image_size: tuple[int, int]) -> np.ndarray:
    with torch.device("meta"):
        network = build_backbone(layout).eval()
    return _count(network, network, image_size)


@torch.no_grad()
def _count(
    network: nn.Module, run: Callable[[Tensor], Any], image_size: tuple[int, int]
) -> np.ndarray:
    """Parameters of a network, and `flops` and `paper_flops` of one image; run on two, for PyTorch
    refuses to normalise a single value, which a small image may leave in a channel group.
    """
    with (
        FlopCounterMode(display=False, custom_mapping=_FVCORE) as counted,
        _PaperRule().counting(network) as by_paper,
    ):
        run(torch.empty(IMAGES, 3, *image_size, device="meta"))
    params = sum(parameter.numel() for parameter in network.parameters())
    return np.array(
        [params, counted.get_total_flops() // MULTIPLY_ADD // IMAGES, by_paper.flops // IMAGES]
    )


def _each_element(operations: int) -> Callable[..., int]:
    """A count for `FlopCounterMode`, which counts a multiply-add as two."""

    def count(_: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
        first = out_shape[0] if isinstance(out_shape[0], (tuple, list)) else out_shape
        return MULTIPLY_ADD * operations * math.prod(first)

    return count


def _deformable_convolution(
    x: Any, weight: Any, *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    """Its products and the sampling before them, for `FlopCounterMode`, which does not know it."""
    batch, channels, *plane = out_shape
    sampled = batch * math.prod(plane) * math.prod(weight[1:])
    return MULTIPLY_ADD * sampled * (channels + SAMPLING)


_aten = torch.ops.aten
_ELEMENTWISE = {
    _aten._native_batch_norm_legit_no_training: 2,
    _aten.native_batch_norm: 2,
    _aten.native_layer_norm: 5,
    _aten.native_group_norm: 5,
    _aten.upsample_nearest2d: 1,
}
# Under the name of the overload too: else `FlopCounterMode` counts the pieces that PyTorch may know
# for it, which cost nothing.
_FVCORE: dict[Any, Callable[..., int]] = {
    **{name: _each_element(n) for op, n in _ELEMENTWISE.items() for name in (op, op.default)},
    torch.ops.torchvision.deform_conv2d: _deformable_convolution,
}


# A function there; a synchronised norm, which the counter does not know; the linear maps in
# `nn.MultiheadAttention`, likewise.
_UNCOUNTED = (
    ("rpn.*", nn.ReLU),
    ("roi_heads.*", nn.BatchNorm2d),
    ("*.self_attention.*", nn.Linear),
)


class _PaperRule:
    """`PAPER_RULE`, that of mmdetection's `get_flops`, which counts modules: what is a function
    there (attention, GELU, the region proposal network's ReLU, interpolation) costs nothing. It
    reproduces Table 2 of the paper, its misprints aside.
    """

    def __init__(self) -> None:
        self.flops = 0

    @contextmanager
    def counting(self, network: nn.Module) -> Iterator[_PaperRule]:
        """Count what `network` does inside."""
        hooks = [
            module.register_forward_hook(self._count)
            for name, module in network.named_modules()
            if not any(
                fnmatchcase(name, part) and isinstance(module, kind) for part, kind in _UNCOUNTED
            )
        ]
        try:
            yield self
        finally:
            for hook in hooks:
                hook.remove()

    def _count(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            transposed = isinstance(module, nn.ConvTranspose2d)
            positions = (
                inputs[0].numel() // module.in_channels
                if transposed
                else output.numel() // module.out_channels
            )
            self.flops += positions * module.weight.numel() + (
                output.numel() if module.bias is not None else 0
            )
            if isinstance(module, DeformableConv):
                self.flops += SAMPLING * positions * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            self.flops += inputs[0].numel() * module.out_features
        elif isinstance(module, (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)):
            self.flops += 2 * output.numel()
        elif isinstance(module, (nn.ReLU, nn.MaxPool2d)):
            self.flops += inputs[0].numel()
