"""What Faster and Cascade R-CNN have in common: torchvision's order of proposals and heads, in
detection and in training.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList

from nas.models.detectors.base import Detector
from nas.models.detectors.normalization import Losses
from nas.models.necks.pyramid import NeckDims


class TwoStageDetector(Detector, GeneralizedRCNN):
    """Proposes regions, then looks at each of them, on five pyramid levels at strides 4 to 64. Its
    modules give losses that are sums over images (`nas.models.detectors.region_losses`).
    """

    neck: ClassVar[NeckDims] = {"first": 0, "extra": "pool"}
    rpn: Any
    roi_heads: Any

    def heads(self) -> list[nn.Module]:
        return [self.rpn, self.roi_heads]

    def detections(self, batch: ImageList, maps: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        proposals, _ = self.rpn(batch, maps)
        found: list[dict[str, Tensor]]
        found, _ = self.roi_heads(maps, proposals, batch.image_sizes)
        return found

    def loss_sums(
        self, batch: ImageList, maps: dict[str, Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[Losses, Losses]:
        proposals, of_proposals = self.rpn(batch, maps, targets)
        _, of_regions = self.roi_heads(maps, proposals, batch.image_sizes, targets)
        return {**of_regions, **of_proposals}, self.loss_counts([*batch.tensors], targets)
