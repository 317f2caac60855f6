"""Which of its detections a detector gives, where a request says nothing of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from nas.config.choices import DetectorName

LEAST_SCORE: dict[DetectorName, float] = dict.fromkeys(get_args(DetectorName), 0.05)
LEAST_SCORE["sparse_rcnn"] = 0.0  # the best, whatever their score (section 3.1)
# As our Cascade, FCOS, ATSS and RepPoints v2 were published; Sparse R-CNN suppresses nothing.
LARGEST_IOU: dict[DetectorName, float] = {
    "fcos": 0.6,
    "faster_rcnn": 0.6,
    "cascade_mask_rcnn": 0.5,
    "atss": 0.6,
    "reppoints_v2": 0.6,
}


@dataclass(frozen=True)
class DetectionLimits:
    """What a detector leaves out of its detections of an image.

    Args:
        count: how many it gives at most, the best ones by score.
        score: those that score no more than this, 0 to 1, are left out; with 0 none are.
        nms_iou: IoU above which the worse of two detections of a class is left out, 0 to 1; a
            detector without non-maximum suppression does not look at it.
    """

    count: int
    score: float
    nms_iou: float


def detection_limits(
    detector: DetectorName, count: int, score: float | None, nms_iou: float | None
) -> DetectionLimits:
    """Complete the limits of a request by the detector's own; None stands for these.

    Args:
        detector: whose.
        count, score, nms_iou: see `DetectionLimits`.
    """
    return DetectionLimits(
        count,
        LEAST_SCORE[detector] if score is None else score,
        LARGEST_IOU.get(detector, 1.0) if nms_iou is None else nms_iou,
    )
