"""ATSS (Zhang et al., CVPR 2020): FCOS's network on anchors, with positives chosen by the
statistics of their overlaps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nas.models.detectors.atss_loss import atss_losses, decode_boxes, encode_boxes, match
from nas.models.detectors.dense_detector import DenseDetector
from nas.models.detectors.normalization import Losses
from nas.models.detectors.output_calibration import LocationStatistics

ANCHOR_SIDE = 8  # strides


class _Deltas:
    """What torchvision's FCOS asks of a box coder."""

    decode = staticmethod(decode_boxes)


class Atss(DenseDetector):
    """ATSS (Zhang et al., CVPR 2020): a `DenseDetector` whose boxes are deltas on one square anchor
    at each location, and whose positives follow from the overlaps of each object (section 3).
    """

    coder = _Deltas()

    @staticmethod
    def anchor_side(object_scale: float) -> float:
        """Eight strides, in proportion to the objects."""
        return ANCHOR_SIDE * object_scale

    @staticmethod
    def activation(boxes: Tensor) -> Tensor:
        """Nothing: deltas have both signs."""
        return boxes

    def match(self, anchors: Tensor, counts: Sequence[int], boxes: Tensor) -> Tensor:
        return match(anchors, counts, boxes)

    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Deltas, as the head predicts them."""
        return encode_boxes(boxes, anchors)

    def set_boxes(self, found: LocationStatistics) -> None:
        """The bias of each delta is its mean; the levels' scales stay 1."""
        self.head.regression_head.bbox_reg.bias.copy_(found.mean_code)

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        counts: list[int],
    ) -> tuple[Losses, Losses]:
        """Losses of ATSS on one square anchor a location, by `atss_losses`."""
        return atss_losses(head_outputs, anchors[0], counts, targets)

    def postprocess_detections(
        self,
        head_outputs: dict[str, list[Tensor]],
        anchors: list[list[Tensor]],
        image_shapes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        """The authors' rule: candidates by their class alone, ranked and scored by the root of
        class times centerness.

        mmdetection scores by the product, in the same order. torchvision also leaves out what
        scores below the threshold.
        """
        logits = [
            level.masked_fill(level.sigmoid() <= self.score_thresh, -torch.inf)
            for level in head_outputs["cls_logits"]
        ]
        return super().postprocess_detections(
            {**head_outputs, "cls_logits": logits}, anchors, image_shapes
        )
