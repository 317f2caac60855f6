"""Detectors around a backbone; `nas.models.detectors.base` says what they have in common."""

from __future__ import annotations

from nas.config.choices import Init
from nas.config.sections import DetectorSpec
from nas.models.backbones import build_backbone, he_init_
from nas.models.detectors.atss import Atss
from nas.models.detectors.base import Detector
from nas.models.detectors.cascade_rcnn import CascadeMaskRcnn
from nas.models.detectors.faster_rcnn import FasterRcnn
from nas.models.detectors.fcos import Fcos
from nas.models.detectors.reppoints import RepPointsV2
from nas.models.detectors.sparse_rcnn import SparseRcnn
from nas.models.necks.pyramid import PyramidBackbone
from search_spaces.layout import Layout

DETECTORS: dict[str, type[Detector]] = {  # named as in `nas.config.choices.DetectorName`
    "fcos": Fcos,
    "faster_rcnn": FasterRcnn,
    "atss": Atss,
    "reppoints_v2": RepPointsV2,
    "cascade_mask_rcnn": CascadeMaskRcnn,
    "sparse_rcnn": SparseRcnn,
}

__all__ = ["DETECTORS", "Detector", "build_detector"]


def build_detector(
    layout: Layout, spec: DetectorSpec, num_classes: int, init: Init = "he"
) -> Detector:
    """Build the detector of a layout; neck and heads are He-initialised, but for what the detector
    itself initialises (`Detector.init_heads`).

    Args:
        layout: of the backbone.
        spec: which detector, with which widths.
        num_classes: without the background.
        init: how the backbone's weights are drawn, see `nas.models.backbones.init_backbone_`.
    """
    kind = DETECTORS[spec.name]
    pyramid = PyramidBackbone(
        build_backbone(layout, init), channels=spec.channels, neck=spec.neck, **kind.neck
    )
    detector = kind.from_spec(pyramid, num_classes, spec)
    for part in (pyramid.fpn, *detector.heads()):
        he_init_(part)
    detector.init_heads()
    return detector
