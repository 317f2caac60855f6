"""FCOS (Tian et al., ICCV 2019), on torchvision's; its losses are ours
(`nas.models.detectors.fcos_loss`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.models.detectors.dense_detector import DenseDetector
from nas.models.detectors.dense_head import centers_of
from nas.models.detectors.fcos_loss import fcos_losses, match
from nas.models.detectors.normalization import Losses
from nas.models.detectors.output_calibration import ENOUGH, LocationStatistics

LEAST_DISTANCE = 0.01  # strides, where a logarithm is taken
SCALES = (0.5, 4.0)  # limits of a level's scale when it is calibrated


class Fcos(DenseDetector):
    """FCOS (Tian et al., ICCV 2019): a `DenseDetector` whose boxes are the distances from a
    location to their four sides, in strides (section 3.1).
    """

    @staticmethod
    def anchor_side(object_scale: float) -> float:
        """One stride: anchors stand for their locations."""
        return 1.0

    @staticmethod
    def activation(boxes: Tensor) -> Tensor:
        """Distances are not negative."""
        return F.relu(boxes)

    def match(self, anchors: Tensor, counts: Sequence[int], boxes: Tensor) -> Tensor:
        strides, ends = anchors[:, 2] - anchors[:, 0], (counts[0], counts[-1])
        return match(centers_of(anchors), strides, boxes, ends, self.object_scale)

    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Logarithms of the distances to the four sides, in strides."""
        points, strides = centers_of(anchors), anchors[:, 2:3] - anchors[:, :1]
        distances = torch.cat([points - boxes[:, :2], boxes[:, 2:] - points], dim=1)
        return (distances / strides).clamp(min=LEAST_DISTANCE).log()

    def set_boxes(self, found: LocationStatistics) -> None:
        """The bias of each side is the exponential of its mean logarithm; the scale of a level with
        enough positives is that of its mean over the mean of all, 1/2 to 4. With a bias of 0 half
        of the distances would be cut off by the ReLU, and not learn.
        """
        regression = self.head.regression_head
        regression.bbox_reg.bias.copy_(found.mean_code.exp())
        for level, count in enumerate(found.levels.tolist()):
            if count >= ENOUGH:
                difference = (found.codes[level] / count).mean() - found.mean_code.mean()
                regression.scales[level] = difference.exp().clamp(*SCALES)

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        counts: list[int],
    ) -> tuple[Losses, Losses]:
        """Losses by `fcos_losses`; anchors are squares of one stride around each location."""
        strides = anchors[0][:, 2] - anchors[0][:, 0]
        return fcos_losses(
            head_outputs,
            centers_of(anchors[0]),
            strides,
            targets,
            (counts[0], counts[-1]),
            self.object_scale,
        )
