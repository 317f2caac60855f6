"""The backbone: four stages, each of convolution or of attention (Hong et al., CVPR 2022, section
4.2).

Built from plain dimensions, so that an exported bundle can carry this code without the rest of the
package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.models.backbones.graph import IMAGES, Node, backbone_graph
from nas.models.backbones.resnet_stage import ConvStage
from nas.models.backbones.stems import make_stem
from nas.models.backbones.swin_stage import AttentionStage


class StageDims(TypedDict):
    """Dimensions of one stage: its `kind`, C or T, its `depth` in blocks, its `width` in channels,
    and of a T stage its attention `heads`.
    """

    kind: str
    depth: int
    width: int
    heads: int


class HybridBackbone(nn.Module):
    """Four stages of convolution or attention, from images to four feature maps: [B, 3, H, W] ->
    [B, width_i, ceil(H / s_i), ceil(W / s_i)] with s = 4, 8, 16, 32.

    Outputs of T stages pass a layer norm of their own on the way out; the next stage takes the map
    without it. Outputs of C stages are handed on as they are.

    Args:
        stages: dimensions of the four stages.
        stem: `resnet`, `patch` or `dsod`.
        stem_width: channels behind the stem.
        window: side of the attention windows, in positions.
        mlp_ratio: hidden width of a T block's MLP over its width.
        norm: `bn`, `gn` or `syncbn`, in the stem and the C stages.
        dense: stages from the third on are given the outputs of all stages before them, max-pooled
            to the size of the last.

    Attributes:
        graph: the steps of the forward pass, in order.
    """

    def __init__(
        self,
        *,
        stages: Sequence[StageDims],
        stem: str,
        stem_width: int,
        window: int,
        mlp_ratio: float,
        norm: str,
        dense: bool = False,
    ) -> None:
        super().__init__()
        self.widths = tuple(stage["width"] for stage in stages)
        self.graph = backbone_graph(self.widths, stem_width, dense=dense)
        self.stem, self.join = make_stem(stem, stem_width, norm), DenseJoin()
        self.stages, self.norms = nn.ModuleList(), nn.ModuleList()
        for node in self.graph:
            if node.kind == "stage":
                dims = stages[node.stage]
                self.stages.append(_make_stage(node, dims, window, mlp_ratio, norm))
                self.norms.append(
                    nn.LayerNorm(node.width) if dims["kind"] == "T" else nn.Identity()
                )

    def forward(self, images: Tensor) -> list[Tensor]:
        values = {IMAGES: images}
        for node in self.graph:
            values[node.name] = self._run(node, *[values[name] for name in node.inputs])
            for name in node.releases:
                del values[name]
        return [values[node.name] for node in self.graph if node.kind == "norm"]

    def _run(self, node: Node, x: Tensor, *others: Tensor) -> Tensor:
        value: Tensor
        if node.kind == "join":
            value = self.join(x, *others)
        elif node.kind == "norm":
            value = self.norms[node.stage](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        else:
            value = self.stem(x) if node.kind == "stem" else self.stages[node.stage](x)
        return value


def _make_stage(node: Node, dims: StageDims, window: int, mlp_ratio: float, norm: str) -> nn.Module:
    (in_width,), width, depth = node.in_widths, node.width, dims["depth"]
    if dims["kind"] == "C":
        return ConvStage(in_width=in_width, width=width, depth=depth, stride=node.stride, norm=norm)
    return AttentionStage(
        in_width=in_width if node.stride == 2 else None,
        width=width,
        depth=depth,
        heads=dims["heads"],
        window=window,
        mlp_ratio=mlp_ratio,
    )


class DenseJoin(nn.Module):
    """Joins a stage's output with what that stage was given (dense connections, Huang et al., CVPR
    2017; between resolutions by a 2x2 max-pool, as in DSOD, Shen et al., ICCV 2017).

    [B, C, H, W] and [B, D, H', W'] of twice the size -> [B, C + D, H, W].
    """

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        pooled = F.max_pool2d(before, kernel_size=2, stride=2, ceil_mode=True)
        return torch.cat([x, pooled], dim=1)
