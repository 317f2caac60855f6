"""FCOS (Tian et al., ICCV 2019), on torchvision's; its losses are ours
(`nas.models.detectors.fcos_loss`).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from nas.models.detectors.dense_detector import DenseDetector
from nas.models.detectors.dense_head import centers_of
from nas.models.detectors.fcos_loss import fcos_losses
from nas.models.necks.pyramid import PyramidBackbone


class Fcos(DenseDetector):
    """FCOS (Tian et al., ICCV 2019): a `DenseDetector` whose boxes are the distances from a
    location to their four sides, in strides (section 3.1).
    """

    def __init__(self, backbone: PyramidBackbone, num_classes: int) -> None:
        super().__init__(backbone, num_classes, anchor_side=1, activation=F.relu)

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        counts: list[int],
    ) -> dict[str, Tensor]:
        """Losses by `fcos_losses`; anchors are squares of one stride around each location."""
        strides = anchors[0][:, 2] - anchors[0][:, 0]
        return fcos_losses(
            head_outputs, centers_of(anchors[0]), strides, targets, (counts[0], counts[-1])
        )
