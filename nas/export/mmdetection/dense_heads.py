"""FCOS and ATSS in mmdetection's configuration."""

from __future__ import annotations

from itertools import pairwise

from nas.export.description import Trained
from nas.export.mmdetection.common import (
    FOCAL,
    SIGMOID,
    Config,
    box_coder,
    giou,
    plain,
    suppressed,
)
from nas.models.detectors.atss import ANCHOR_SIDE
from nas.models.detectors.dense_head import STRIDES, TOWER_DEPTH


def fcos(trained: Trained) -> Config:
    """Write FCOS, without backbone and neck."""
    head = _dense(trained, "ScratchNasFCOSHead") | {
        "strides": list(STRIDES),
        "norm_on_bbox": True,
        "centerness_on_reg": True,
        "center_sampling": True,
        "center_sample_radius": 1.5,
        "loss_bbox": giou(1.0),
        **_ranges(trained.detector.object_scale),
    }
    return {"type": "FCOS", "bbox_head": head, "test_cfg": _tested(trained)}


def atss(trained: Trained) -> Config:
    """Write ATSS, without backbone and neck."""
    anchors = {
        "type": "ScratchNasAnchors",
        "ratios": [1.0],
        "octave_base_scale": plain(ANCHOR_SIDE * trained.detector.object_scale),
        "scales_per_octave": 1,
        "strides": list(STRIDES),
    }
    head = _dense(trained, "ScratchNasATSSHead") | {
        "anchor_generator": anchors,
        "bbox_coder": box_coder([0.1, 0.1, 0.2, 0.2]),
        "loss_bbox": giou(2.0),
    }
    training = {
        "assigner": {"type": "ATSSAssigner", "topk": 9},
        "allowed_border": -1,
        "pos_weight": -1,
        "debug": False,
    }
    return {
        "type": "ATSS",
        "bbox_head": head,
        "train_cfg": training,
        "test_cfg": _tested(trained),
    }


def _dense(trained: Trained, kind: str) -> Config:
    channels = trained.detector.channels
    return {
        "type": kind,
        "num_classes": len(trained.categories),
        "in_channels": channels,
        "feat_channels": channels,
        "stacked_convs": TOWER_DEPTH,
        "loss_cls": FOCAL,
        "loss_centerness": SIGMOID,
    }


def _tested(trained: Trained) -> Config:
    return {"nms_pre": 1000, "min_bbox_size": -1, **suppressed(trained.detector.limits)}


def _ranges(object_scale: float) -> Config:
    """FCOS's ranges, where they are not mmdetection's own."""
    if object_scale == 1:
        return {}
    limits = [-1.0, *(plain(limit * object_scale) for limit in (64, 128, 256, 512)), 1e8]
    return {"regress_ranges": tuple(pairwise(limits))}
