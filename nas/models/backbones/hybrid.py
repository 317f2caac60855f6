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

from nas.models.backbones.resnet_stage import ConvStage
from nas.models.backbones.stems import make_stem
from nas.models.backbones.swin_stage import AttentionStage


class StageDims(TypedDict):
    """Dimensions of one stage; `heads` counts in T stages only."""

    kind: str
    depth: int
    width: int
    heads: int


class HybridBackbone(nn.Module):
    """Image to four feature maps: [B, 3, H, W] -> [B, width_i, ceil(H / s_i), ceil(W / s_i)] with s
    = 4, 8, 16, 32.

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
        self.stem, self.dense = make_stem(stem, stem_width, norm), dense
        self.stages, self.norms = nn.ModuleList(), nn.ModuleList()
        in_width = stem_width
        for index, stage in enumerate(stages):
            width, depth = stage["width"], stage["depth"]
            built: nn.Module
            if stage["kind"] == "C":
                stride = 2 if index else 1
                built = ConvStage(
                    in_width=in_width, width=width, depth=depth, stride=stride, norm=norm
                )
            else:
                merged = in_width if index else None
                built = AttentionStage(
                    in_width=merged,
                    width=width,
                    depth=depth,
                    heads=stage["heads"],
                    window=window,
                    mlp_ratio=mlp_ratio,
                )
            self.stages.append(built)
            self.norms.append(nn.LayerNorm(width) if stage["kind"] == "T" else nn.Identity())
            in_width = width + (in_width if dense and index else 0)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.stem(images)
        outputs: list[Tensor] = []
        before: Tensor | None = None
        for index, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            x = stage(x)
            outputs.append(norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
            if self.dense and index < len(self.stages) - 1:
                x = x if before is None else dense_join(x, before)
                before = x
        return outputs


def dense_join(x: Tensor, before: Tensor) -> Tensor:
    """A stage's output [B, C, H, W] and what that stage was given, [B, D, H', W'] of twice the
    size, as [B, C + D, H, W] (dense connections, Huang et al., CVPR 2017; between resolutions by a
    2x2 max-pool, as in DSOD, Shen et al., ICCV 2017).
    """
    return torch.cat([x, F.max_pool2d(before, kernel_size=2, stride=2, ceil_mode=True)], dim=1)
