"""Parts of mmdetection's configuration that several detectors have."""

from __future__ import annotations

from typing import Any

from nas.config.detections import DetectionLimits

Config = dict[str, Any]

FOCAL = {"type": "FocalLoss", "use_sigmoid": True, "gamma": 2.0, "alpha": 0.25, "loss_weight": 1.0}
SIGMOID = {"type": "CrossEntropyLoss", "use_sigmoid": True, "loss_weight": 1.0}
SOFTMAX = {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0}


def box_coder(deviations: list[float], **options: Any) -> Config:
    """Write a coder of boxes as deltas, whose standard deviations are given."""
    means = {"target_means": [0.0] * 4, "target_stds": deviations}
    return {"type": "DeltaXYWHBBoxCoder", **means, **options}


def giou(weight: float) -> Config:
    """Write a GIoU loss."""
    return {"type": "GIoULoss", "loss_weight": weight}


def suppressed(limits: DetectionLimits) -> Config:
    """Write which detections are given."""
    return {
        "score_thr": limits.score,
        "nms": {"type": "nms", "iou_threshold": limits.nms_iou},
        "max_per_img": limits.count,
    }


def plain(number: float) -> float:
    """Make a number that is whole an int, as configurations have it."""
    return int(number) if number == int(number) else number
