"""A backbone as an image classifier, and how good it is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.models.backbones import HybridBackbone
from nas.models.detectors.transform import IMAGENET

HEAD_STD = 0.02  # Swin's


class Classifier(nn.Module):
    """Classifies images by the last map of a backbone, averaged over its positions, and a linear
    layer: [B, 3, H, W] -> [B, classes].

    Images are float in 0 to 1, normalised here as detectors do it. A last T stage has its norm
    before the average, as in Swin; a last C stage has none, as in ResNet. The output norms of
    earlier stages have no part in this: they stay at identity, frozen, and are what a detector
    begins with.

    Called with targets too, classes [B] from 0 or shares of them [B, classes], it gives the
    cross-entropy as a dict of losses: with smoothing e, a target t over K classes becomes (1 - e) t
    + e / K (Szegedy et al., CVPR 2016).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: HybridBackbone, classes: int, label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        self.backbone, self.label_smoothing = backbone, label_smoothing
        self.memory_format = torch.contiguous_format  # of the batch
        self.head = nn.Linear(backbone.widths[-1], classes)
        nn.init.trunc_normal_(self.head.weight, std=HEAD_STD)
        nn.init.zeros_(self.head.bias)
        for norm in backbone.norms[:-1]:
            norm.requires_grad_(False)
        for name, values in IMAGENET._asdict().items():
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor, targets: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        images = ((images - self.mean) / self.std).contiguous(memory_format=self.memory_format)
        features = self.backbone(images)[-1]
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        if targets is None:
            return logits
        return {
            "cross_entropy": F.cross_entropy(
                logits.float(), targets, label_smoothing=self.label_smoothing
            )
        }


def top_k(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """Count the labels that are among the largest logits; all where there are no more than k
    classes.

    Args:
        logits: [B, classes].
        labels: [B], from 0.
        k: how many logits of each image count.

    Returns:
        A scalar, at most B.
    """
    first = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return (first == labels[:, None]).any(dim=1).sum()
