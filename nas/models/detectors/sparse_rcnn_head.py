"""The head of Sparse R-CNN (Sun et al., CVPR 2021, section 3): proposals that are learned, and
stages that refine them.

Shapes: B images, S stages, P proposals of each image, R = B P regions, K classes, C channels, D = C
    / 4.

From the published code (PeizeSun/SparseR-CNN, projects/SparseRCNN/sparsercnn/head.py, config.py;
the same in mmdetection's configs/sparse_rcnn): six stages, 8 heads, D = 64 and 2048 hidden units at
C = 256, one layer before the logits and three before the boxes, no dropout, 7x7 RoIAlign with
sampling ratio 2, box offsets with weights 2, 2, 1, 1. Different here: D and the hidden units scale
with C; RoIAlign is that of our other detectors, without the half pixel; and queries, keys and
values come from a linear map of our own, because the weight of `nn.MultiheadAttention` is in no
layer that initialisation and calibration would find.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import MLP, box_convert

from nas.models.detectors.faster_rcnn import ROI_SIZE, PyramidRoIAlign

STAGES = 6
HEADS = 8
HIDDEN_RATIO = 8  # of the feed-forward layers to C
DYNAMIC_RATIO = 4  # of C to D
CLS_LAYERS, REG_LAYERS = 1, 3
CODER = BoxCoder(weights=(2.0, 2.0, 1.0, 1.0), bbox_xform_clip=math.log(100_000 / 16))


class DynamicHead(nn.Module):
    """Moves boxes in stages: each looks at the pyramid where the boxes of the one before are
    (section 3.2).

    Args:
        channels: C, of the pyramid.
        num_classes: K.
        proposals: P, learned boxes of each image.
    """

    def __init__(self, channels: int, num_classes: int, proposals: int) -> None:
        super().__init__()
        whole_image = torch.tensor([0.5, 0.5, 1.0, 1.0]).repeat(proposals, 1)
        self.proposal_boxes = nn.Parameter(
            whole_image
        )  # centre, width, height, in widths and heights of the image
        self.proposal_features = nn.Parameter(torch.randn(proposals, channels))
        self.stages = nn.ModuleList(Stage(channels, num_classes) for _ in range(STAGES))
        self.pool = PyramidRoIAlign()

    def forward(self, levels: Sequence[Tensor], sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits [B, S, P, K] and boxes [B, S, P, 4] of every stage.

        Args:
            levels: maps [B, C, H, W] at strides 4, 8, 16, 32.
            sizes: [B, 4], width, height, width, height of each image in pixels, without padding.
        """
        maps = {str(level): x for level, x in enumerate(levels)}
        return self.refine(sizes, lambda boxes: self.pool(maps, list(boxes), []))

    def refine(self, sizes: Tensor, pool: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Run all stages with a given way to pool.

        Args:
            sizes: [B, 4], width, height, width, height of each image in pixels, without padding.
            pool: from boxes [B, P, 4] to regions [R, C, 7, 7], R = B P.

        Returns:
            Class logits [B, S, P, K] and boxes [B, S, P, 4] of every stage, in pixels.
        """
        boxes = self.proposals(sizes)
        features = self.proposal_features.repeat(len(sizes), 1, 1)
        found: list[tuple[Tensor, Tensor]] = []
        for stage in self.stages:
            features, logits, offsets = stage(features, pool(boxes.detach()))
            moved = moved_boxes(boxes, offsets)
            found.append((logits.float(), moved))
            boxes = moved.detach()  # each stage learns its own step only
        every_logits, every_moved = zip(*found, strict=True)
        return torch.stack(every_logits, dim=1), torch.stack(every_moved, dim=1)

    def proposals(self, sizes: Tensor) -> Tensor:
        """Boxes [B, P, 4] that the first stage starts from; `sizes` as of `refine`."""
        boxes: Tensor = box_convert(self.proposal_boxes, "cxcywh", "xyxy") * sizes[:, None]
        return boxes


def moved_boxes(boxes: Tensor, offsets: Tensor) -> Tensor:
    """Boxes [B, P, 4], pixels, moved by what a stage says of them [B, P, 4]."""
    moved: Tensor = CODER.decode_single(offsets.float().flatten(0, 1), boxes.flatten(0, 1))
    return moved.view_as(boxes)


class Stage(nn.Module):
    """One stage: features [B, P, C] of the proposals and regions [R, C, 7, 7] -> new features,
    logits [B, P, K], offsets [B, P, 4] (section 3.2).
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.self_attention, self.interaction = (
            SelfAttention(channels),
            DynamicInteraction(channels),
        )
        self.ffn = MLP(channels, [HIDDEN_RATIO * channels, channels], inplace=None)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))
        self.cls_tower, self.reg_tower = _tower(channels, CLS_LAYERS), _tower(channels, REG_LAYERS)
        self.cls_logits, self.bbox_pred = nn.Linear(channels, num_classes), nn.Linear(channels, 4)

    def forward(self, features: Tensor, regions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.norm1(features + self.self_attention(features))
        x = self.norm2(x + self.interaction(x.flatten(0, 1), regions).view_as(x))
        x = self.norm3(x + self.ffn(x))
        return x, self.cls_logits(self.cls_tower(x)), self.bbox_pred(self.reg_tower(x))


class SelfAttention(nn.Module):
    """Attention of every proposal of an image to every other: [B, P, C] -> [B, P, C]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            self.qkv(x).view(*x.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4).unbind(0)
        )
        attended: Tensor = self.proj(
            F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        )
        return attended


class DynamicInteraction(nn.Module):
    """Two 1x1 convolutions on each region, whose weights the region's own proposal gives: features
    [R, C] and regions [R, C, 7, 7] -> [R, C] (section 3.2, figure 4).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // DYNAMIC_RATIO
        self.dynamic = nn.Linear(channels, 2 * channels * inner)
        self.norm1, self.norm2, self.norm3 = (
            nn.LayerNorm(width) for width in (inner, channels, channels)
        )
        self.out = nn.Linear(channels * ROI_SIZE**2, channels)
        self.relu = nn.ReLU()

    def forward(self, features: Tensor, regions: Tensor) -> Tensor:
        rows, channels = features.shape
        first, second = self.dynamic(features).chunk(2, dim=1)
        x = regions.flatten(2).transpose(1, 2)  # [R, 49, C]
        x = self.relu(self.norm1(x @ first.view(rows, channels, -1)))
        x = self.relu(self.norm2(x @ second.view(rows, -1, channels)))
        mixed: Tensor = self.relu(self.norm3(self.out(x.flatten(1))))
        return mixed


def _tower(channels: int, depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(channels, channels, bias=False), nn.LayerNorm(channels), nn.ReLU()]
    return nn.Sequential(*layers)
