"""Multiply-adds of networks, counted on meta tensors while they run; `nas.profiling.flops` has the
rules in words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nas.config.sections import DetectorSpec
from nas.models.backbones import layout_graph
from nas.models.backbones.graph import IMAGES
from nas.models.detectors import DETECTORS, build_detector
from nas.models.detectors.deformable_conv import DeformableConv
from nas.profiling.segments import SMALLEST, Segment, backbone_segments, neck_segment
from search_spaces.layout import Layout

Result = TypeVar("Result")
Shape = tuple[int, ...]

MULTIPLY_ADD = 2  # operations, as `FlopCounterMode` counts
# Images that are counted together: PyTorch refuses to normalise a single value, which one small
# image may leave in a channel group.
BATCH = 2
SAMPLING = 4  # multiply-adds of a bilinear interpolation


def count_detector(
    layout: Layout, detector: DetectorSpec, num_classes: int, image_size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Count a detector on one image of (height, width) pixels, multiples of 32.

    Segment by segment: each distinct one is counted once, whatever layouts it stands in.

    Returns:
        Parameters of the whole, of its backbone, and multiply-adds by `RULE` and by `PAPER_RULE`
        of `nas.profiling.flops`.
    """
    backbone, maps = _count_backbone(layout, image_size)
    neck, levels = _count_segment(
        neck_segment(layout.widths, detector), maps[DETECTORS[detector.name].neck["first"] :]
    )
    params, flops, paper_flops = backbone + neck + _count_heads(detector, num_classes, levels)
    return int(params), int(backbone[0]), int(flops), int(paper_flops)


def _count_backbone(
    layout: Layout, image_size: tuple[int, int]
) -> tuple[np.ndarray, tuple[Shape, ...]]:
    """Figures of a backbone, and the shapes of its four maps."""
    figures = np.zeros(3, dtype=np.int64)
    shapes: dict[str, Shape] = {IMAGES: (BATCH, 3, *image_size)}
    for node in layout_graph(layout):
        results = tuple(shapes[name] for name in node.inputs)
        for segment in backbone_segments(layout, node):
            counted, results = _count_segment(segment, results)
            figures += counted
        (shapes[node.name],) = results
    return figures, tuple(shapes[node.name] for node in layout_graph(layout) if node.kind == "norm")


@lru_cache(maxsize=4096)
def _count_segment(
    segment: Segment, inputs: tuple[Shape, ...]
) -> tuple[np.ndarray, tuple[Shape, ...]]:
    """Figures of a segment on inputs of some shapes, and the shapes of its results."""
    with torch.device("meta"):
        network = segment.build().eval()
        tensors = [torch.empty(shape) for shape in inputs]
    counted, result = count_network(network, lambda: network(*tensors))
    results = [result] if isinstance(result, Tensor) else result
    return counted, tuple(tuple(tensor.shape) for tensor in results)


@lru_cache(maxsize=1024)
def _count_heads(detector: DetectorSpec, num_classes: int, levels: tuple[Shape, ...]) -> np.ndarray:
    """Figures of what follows the pyramid."""
    with torch.device("meta"):
        network = build_detector(SMALLEST, detector, num_classes).eval()
        tensors = [torch.empty(shape) for shape in levels]
    counted, _ = count_network(network, lambda: network.heads_forward(tensors))
    counted[0] -= sum(parameter.numel() for parameter in network.backbone.parameters())
    return counted


@torch.no_grad()
def count_network(network: nn.Module, run: Callable[[], Result]) -> tuple[np.ndarray, Result]:
    """Count a network by both rules.

    Args:
        network: on the meta device, in evaluation mode.
        run: runs it on `BATCH` images.

    Returns:
        Its parameters, and `flops` and `paper_flops` of one image; and what `run` returned.
    """
    with (
        FlopCounterMode(display=False, custom_mapping=_FVCORE) as counted,
        _PaperRule().counting(network) as by_paper,
    ):
        result = run()
    params = sum(parameter.numel() for parameter in network.parameters())
    figures = [params, counted.get_total_flops() // MULTIPLY_ADD // BATCH, by_paper.flops // BATCH]
    return np.array(figures), result


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
    operations: int = MULTIPLY_ADD * sampled * (channels + SAMPLING)
    return operations


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
