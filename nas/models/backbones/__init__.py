"""The backbone of a layout: its network, the network's dimensions and its wiring."""

from __future__ import annotations

from nas.config.choices import Init
from nas.models.backbones.graph import Node, backbone_graph
from nas.models.backbones.hybrid import HybridBackbone
from nas.models.backbones.init import he_init_, init_backbone_
from search_spaces.layout import Layout

__all__ = ["HybridBackbone", "backbone_dims", "build_backbone", "he_init_", "layout_graph"]


def backbone_dims(layout: Layout) -> dict[str, object]:
    """Arguments of `HybridBackbone` for a layout, as plain JSON."""
    stages = [
        {
            "kind": stage.kind,
            "depth": stage.depth,
            "width": stage.width,
            "heads": layout.heads(index),
        }
        for index, stage in enumerate(layout.stages)
    ]
    names = ("stem", "stem_width", "window", "mlp_ratio", "norm", "dense")
    return {"stages": stages, **{name: getattr(layout, name) for name in names}}


def build_backbone(layout: Layout, init: Init = "he") -> HybridBackbone:
    """Build the network of a layout; on the meta device where that is the default device.

    Args:
        layout: stages, stem and norm.
        init: how its weights are drawn, see `init_backbone_`.
    """
    backbone = HybridBackbone(**backbone_dims(layout))  # type: ignore[arg-type]
    init_backbone_(backbone, init)
    return backbone


def layout_graph(layout: Layout) -> tuple[Node, ...]:
    """Steps of the forward pass of a layout's backbone, in order, as in `HybridBackbone.graph`."""
    assert layout.stem_width is not None  # a layout settles it
    return backbone_graph(layout.widths, layout.stem_width, dense=layout.dense)
