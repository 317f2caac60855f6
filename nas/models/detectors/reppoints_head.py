"""The head of RepPoints v2 (Chen et al., NeurIPS 2020, figure 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.models.backbones.stems import norm_layer
from nas.models.detectors.deformable_conv import DeformableConv
from nas.models.detectors.dense_head import PRIOR, Tower
from nas.models.detectors.reppoints_corners import CornerPooling
from nas.models.detectors.reppoints_points import KERNEL, POINTS, kernel_grid

TOWER_DEPTH = 3
GRADIENT_MULTIPLIER = 0.1  # of what reaches the initial points through the samples taken there
CORNER_OUTPUTS = 6  # two scores, two offsets in x and y


class Verification(nn.Module):
    """Predicts which classes cover each location, and whether it is a corner (RepPoints v2, section
    3.2).

    [B, C, H, W] -> an embedding of the same shape for the other branches, corners [B, 6, H, W]
    (logits of upper left and lower right, x and y to each in strides), foreground logits [B, K, H,
    W].
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.shared = Tower(channels, 1)
        self.foreground = nn.Conv2d(channels, num_classes, 1)
        self.embedding = nn.Sequential(
            nn.Conv2d(channels, channels, 1, bias=False), norm_layer("gn", channels), nn.ReLU()
        )
        self.pools = nn.ModuleList(
            CornerPooling(channels, behind=behind) for behind in (True, False)
        )
        self.scores = nn.ModuleList(nn.Conv2d(channels, 1, 3, padding=1) for _ in self.pools)
        self.offsets = nn.ModuleList(nn.Conv2d(channels, 2, 3, padding=1) for _ in self.pools)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shared = self.shared(features)
        embedding = self.embedding(shared)
        pooled = [pool(shared + embedding) for pool in self.pools]
        scores = [layer(x) for layer, x in zip(self.scores, pooled, strict=True)]
        offsets = [layer(x) for layer, x in zip(self.offsets, pooled, strict=True)]
        return embedding, torch.cat([*scores, *offsets], dim=1), self.foreground(shared)


class RepPointsHead(nn.Module):
    """Predicts everything at every location of the levels, N in all, in their order.

    `logits` [B, N, K], `initial` and `refined` [B, N, 18] (point sets, see
    `nas.models.detectors.reppoints_points`), `corners` [B, N, 6] and `foreground` [B, N, K] (see
    `Verification`).

    Classes and refined points come from the features at the initial points (RepPoints, Yang et al.,
    ICCV 2019, section 4), with what verification found beside them.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.classification, self.localization = (
            Tower(channels, TOWER_DEPTH),
            Tower(channels, TOWER_DEPTH),
        )
        self.verification = Verification(channels, num_classes)
        self.relu = nn.ReLU()
        self.initial = nn.Conv2d(channels, channels, 3, padding=1)
        self.initial_points = nn.Conv2d(channels, 2 * POINTS, 1)
        self.classified = DeformableConv(channels + CORNER_OUTPUTS, channels, KERNEL)
        self.logits = nn.Conv2d(channels, num_classes, 1)
        self.refined = DeformableConv(channels + CORNER_OUTPUTS, channels, KERNEL)
        self.refined_points = nn.Conv2d(channels, 2 * POINTS, 1)
        self.grid: Tensor
        self.register_buffer("grid", kernel_grid(), persistent=False)

    def predictors(self) -> list[nn.Conv2d]:
        """Last layers: points, class logits, foreground and corners."""
        verification = self.verification
        return [
            self.initial_points,
            self.refined_points,
            self.logits,
            verification.foreground,
            *verification.scores,
            *verification.offsets,
        ]

    def init_heads(self) -> None:
        """N(0, 0.01^2), and the prior on every bias that is a probability's."""
        for predictor in self.predictors():
            nn.init.normal_(predictor.weight, std=0.01)
        verification = self.verification
        for rare in (self.logits, verification.foreground, *verification.scores):
            nn.init.constant_(rare.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, levels: Sequence[Tensor]) -> dict[str, Tensor]:
        outputs = [self.of_level(level) for level in levels]
        return {
            name: torch.cat([output[name].flatten(2).transpose(1, 2) for output in outputs], dim=1)
            for name in outputs[0]
        }

    def of_level(self, level: Tensor) -> dict[str, Tensor]:
        """Outputs on one level [B, C, H, W], each [B, its channels, H, W]."""
        features = self.localization(level)
        embedding, corners, foreground = self.verification(features)
        features = features + embedding
        initial = self.initial_points(self.relu(self.initial(features))).float()
        slowed = GRADIENT_MULTIPLIER * initial + (1 - GRADIENT_MULTIPLIER) * initial.detach()
        offsets = slowed - self.grid
        refined = self.refined(torch.cat([features, corners], dim=1), offsets)
        classified = self.classified(
            torch.cat([self.classification(level) + embedding, corners], dim=1), offsets
        )
        return {
            "logits": self.logits(self.relu(classified)),
            "initial": initial,
            "refined": self.refined_points(self.relu(refined)).float() + initial.detach(),
            "corners": corners,
            "foreground": foreground,
        }
