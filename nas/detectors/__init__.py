"""Detectors around a backbone. All of them keep torchvision's contract, and one addition.

In training: `detector(images, targets)` gives a dict of losses; in evaluation `detector(images)` gives one dict of `boxes` [N,
4] (x1, y1, x2, y2 in pixels of the given image), `scores` and `labels` for each image. Images are float tensors [3, H, W] in 0
to 1, each of its own size, already resized; targets have `boxes` [N, 4] and `labels` [N] that count from 1.

The addition: `predictors()` and `init_predictors()`, because the layers that give the outputs have an initialisation of their
own and calibration must leave them alone.
"""

from __future__ import annotations

from torch import nn

from nas.backbone import build_backbone, he_init_
from nas.detectors.faster_rcnn import FasterRcnn
from nas.detectors.fcos import Fcos
from nas.detectors.neck import NeckDims, PyramidBackbone
from nas.spec import DetectorSpec
from search_spaces.layout import Layout

Detector = Fcos | FasterRcnn

# The first backbone map that the pyramid takes, and its extra levels: see `PyramidBackbone`.
NECKS: dict[str, NeckDims] = {"fcos": {"first": 1, "extra": "conv"}, "faster_rcnn": {"first": 0, "extra": "pool"}}

__all__ = ["NECKS", "Detector", "build_detector", "heads"]


def build_detector(layout: Layout, spec: DetectorSpec, num_classes: int) -> Detector:
    """The detector of a layout, He-initialised throughout but for its predictors.

    Args:
        layout: of the backbone.
        spec: which detector, with which widths.
        num_classes: without the background.
    """
    neck = PyramidBackbone(build_backbone(layout), channels=spec.channels, neck=spec.neck, **NECKS[spec.name])
    detector: Detector
    if spec.name == "fcos":
        detector = Fcos(neck, num_classes)
    else:
        detector = FasterRcnn(neck, num_classes, hidden=spec.hidden, roi_op=spec.roi_op)
    for part in (neck.fpn, *heads(detector)):
        he_init_(part)
    detector.init_predictors()
    return detector


def heads(detector: Detector) -> list[nn.Module]:
    """What follows the pyramid."""
    return [detector.head] if isinstance(detector, Fcos) else [detector.rpn, detector.roi_heads]
