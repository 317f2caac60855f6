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
from nas.detectors.neck import PyramidBackbone
from nas.spec import DetectorSpec
from search_spaces.layout import Layout

Detector = Fcos | FasterRcnn

__all__ = ["Detector", "build_detector"]


def build_detector(layout: Layout, spec: DetectorSpec, num_classes: int) -> Detector:
    """The detector of a layout, He-initialised throughout but for its predictors.

    Args:
        layout: of the backbone.
        spec: which detector, with which widths.
        num_classes: without the background.
    """
    backbone = build_backbone(layout)
    detector: Detector
    if spec.name == "fcos":
        neck = PyramidBackbone(backbone, channels=spec.channels, first=1, extra="conv")
        detector = Fcos(neck, num_classes)
    else:
        neck = PyramidBackbone(backbone, channels=spec.channels, first=0, extra="pool")
        detector = FasterRcnn(neck, num_classes, hidden=spec.hidden, roi_op=spec.roi_op)
    for part in (neck.fpn, *_heads(detector)):
        he_init_(part)
    detector.init_predictors()
    return detector


def _heads(detector: Detector) -> list[nn.Module]:
    return [detector.head] if isinstance(detector, Fcos) else [detector.rpn, detector.roi_heads]
