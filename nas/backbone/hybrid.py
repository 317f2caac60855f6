"""The backbone: four stages, each of convolution or of attention (Hong et al., CVPR 2022, section 4.2).

Built from plain dimensions, so that an exported bundle can carry this code without the rest of the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from torch import Tensor, nn

from nas.backbone.attention_stage import AttentionStage
from nas.backbone.conv_stage import ConvStage
from nas.backbone.stems import PatchStem, ResNetStem


class StageDims(TypedDict):
    """Dimensions of one stage; `heads` counts in T stages only."""

    kind: str
    depth: int
    width: int
    heads: int


class HybridBackbone(nn.Module):
    """Image to four feature maps: [B, 3, H, W] -> [B, width_i, ceil(H / s_i), ceil(W / s_i)] with s = 4, 8, 16, 32.

    Outputs of T stages pass a layer norm of their own on the way out; the next stage takes the map without it. Outputs of C
    stages are handed on as they are.

    Args:
        stages: dimensions of the four stages.
        stem: `resnet` or `patch`.
        stem_width: channels behind the stem.
        window: side of the attention windows, in positions.
        mlp_ratio: hidden width of a T block's MLP over its width.
        norm: `bn` or `gn`, in the stem and the C stages.
    """

    def __init__(
        self, *, stages: Sequence[StageDims], stem: str, stem_width: int, window: int, mlp_ratio: float, norm: str
    ) -> None:
        super().__init__()
        self.widths = tuple(stage["width"] for stage in stages)
        self.stem = ResNetStem(stem_width, norm) if stem == "resnet" else PatchStem(stem_width)
        self.stages, self.norms = nn.ModuleList(), nn.ModuleList()
        in_width = stem_width
        for index, stage in enumerate(stages):
            width, depth = stage["width"], stage["depth"]
            built: nn.Module
            if stage["kind"] == "C":
                stride = 2 if index else 1
                built = ConvStage(in_width=in_width, width=width, depth=depth, stride=stride, norm=norm)
            else:
                merged = in_width if index else None
                built = AttentionStage(
                    in_width=merged, width=width, depth=depth, heads=stage["heads"], window=window, mlp_ratio=mlp_ratio
                )
            self.stages.append(built)
            self.norms.append(nn.LayerNorm(width) if stage["kind"] == "T" else nn.Identity())
            in_width = width

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.stem(images)
        outputs = []
        for stage, norm in zip(self.stages, self.norms, strict=True):
            x = stage(x)
            outputs.append(norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        return outputs
