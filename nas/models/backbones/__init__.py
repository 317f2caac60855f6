"""The network of a layout."""

from __future__ import annotations

from nas.models.backbones.hybrid import HybridBackbone
from nas.models.backbones.init import he_init_
from search_spaces.layout import Layout

__all__ = ["HybridBackbone", "backbone_dims", "build_backbone", "he_init_"]


def backbone_dims(layout: Layout) -> dict[str, object]:
    """The arguments of `HybridBackbone` for a layout."""
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


def build_backbone(layout: Layout) -> HybridBackbone:
    """The network of a layout, He-initialised; on the meta device where that is the default
    device.
    """
    backbone = HybridBackbone(**backbone_dims(layout))  # type: ignore[arg-type]
    he_init_(backbone)
    return backbone
