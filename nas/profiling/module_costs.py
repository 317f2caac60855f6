"""Parameters, multiply-adds and activations of a detector module by module, counted by fvcore."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nas.config.sections import DetectorSpec
from nas.models.detectors import Detector, build_detector
from nas.profiling.flop_counter import SAMPLING
from search_spaces.layout import Layout

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it compiles losses as PyTorch does not like any more
    from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis, flop_count_table

DEPTH = 3  # of the modules that a table shows, the detector itself is 0


@dataclass(frozen=True)
class ModuleCost:
    """What a module costs in evaluation, on one image.

    Args:
        module: its name within the detector; empty for the whole.
        params: parameters of the module and all below it, frozen ones too.
        flops: multiply-adds by `nas.profiling.flops.RULE`.
        activations: elements of the outputs of its convolutions and matrix products.
    """

    module: str
    params: int
    flops: int
    activations: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


class ModuleCosts:
    """Counts of every module of a layout's detector, by fvcore, which traces it once on the CPU.

    Args:
        layout: of the backbone.
        detector: around it.
        num_classes: categories, without the background.
        image_size: height and width, pixels, multiples of 32.
    """

    def __init__(
        self, layout: Layout, detector: DetectorSpec, num_classes: int, image_size: tuple[int, int]
    ) -> None:
        self.network = build_detector(layout, detector, num_classes).eval()
        work, images = _Work(self.network), torch.zeros(1, 3, *image_size)
        self._flops = FlopCountAnalysis(work, images)
        self._flops.set_op_handle(**_HANDLERS)
        self._activations = ActivationCountAnalysis(work, images)
        for analysis in (self._flops, self._activations):
            analysis.uncalled_modules_warnings(False)
            analysis.unsupported_ops_warnings(False).tracer_warnings("none")

    @property
    def flops(self) -> int:
        """Multiply-adds of the whole, the figure of `nas.profiling.flops.count_cost`."""
        return int(self._flops.total())

    def rows(self) -> list[ModuleCost]:
        """List every module, each behind the one that it is in."""
        flops, activations = self._flops.by_module(), self._activations.by_module()
        return [
            ModuleCost(
                name, _parameters(module), int(flops[_key(name)]), int(activations[_key(name)])
            )
            for name, module in self.network.named_modules()
        ]

    def table(self) -> str:
        """Write fvcore's own table, of modules down to `DEPTH`."""
        table: str = flop_count_table(self._flops, DEPTH, self._activations)
        return table


class _Work(nn.Module):
    """Backbone, pyramid and heads of a detector, with as many proposals as published counts have.
    Everything computed is returned: the tracer leaves out what leads nowhere.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run on images [B, 3, H, W]."""
        pyramid: Any = self.detector.backbone
        maps: list[Tensor] = []
        hook = pyramid.backbone.register_forward_hook(lambda _, __, found: maps.extend(found))
        levels = [*pyramid(images).values()]
        hook.remove()
        return *maps, *levels, *self.detector.heads_forward(levels)


def _key(name: str) -> str:
    return f"detector.{name}" if name else "detector"


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _attention(inputs: list[Any], outputs: list[Any]) -> int:
    """Scores, and their product with the values."""
    query, key = (tensor.type().sizes() for tensor in inputs[:2])
    return int(2 * math.prod(query) * key[-2])


def _deformable_convolution(inputs: list[Any], outputs: list[Any]) -> int:
    """Products, and the sampling before them."""
    batch, channels, *plane = outputs[0].type().sizes()
    weight = inputs[1].type().sizes()
    return int(batch * math.prod(plane) * math.prod(weight[1:]) * (channels + SAMPLING))


_HANDLERS = {
    "aten::scaled_dot_product_attention": _attention,
    "torchvision::deform_conv2d": _deformable_convolution,
}
