"""A bundle's files for mmdetection 3: a module that registers the backbone, and a configuration
around it.

Names and defaults are those of mmdetection's published configurations (configs/fcos, configs/atss,
configs/_base_/models/ faster-rcnn_r50_fpn.py); numbers are our detector's. Only the backbone's
weights travel: heads have other names there.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pprint import pformat
from typing import Any

from nas.config.detections import DetectionLimits
from nas.export.description import Trained
from nas.export.quoting import python_text
from nas.models.detectors.transform import ImageStatistics

MODULE = '''"""The backbone for mmdetection 3. Put this folder on PYTHONPATH; `mmdet_config.py` imports this module."""

from backbone import BackboneFeatures, build_backbone
from mmengine.registry import MODELS


@MODELS.register_module()
class ScratchNasBackbone(BackboneFeatures):
    """`weights`: a safetensors file, or None to train from scratch; `out_indices`: the maps that the neck takes."""

    def __init__(self, weights=None, out_indices=(0, 1, 2, 3), init_cfg=None):
        super().__init__(build_backbone(), out_indices)
        if weights:
            from safetensors.torch import load_file

            self.backbone.load_state_dict(load_file(weights))

    def init_weights(self):
        """They are there, or PyTorch's own."""

    def forward(self, images):
        return tuple(super().forward(images))
'''

_CONFIG = '''"""{title}

Use: PYTHONPATH=THIS_FOLDER, with mmdetection 3. {note}
Add the data sets and the schedule of your own. Written by scratch-nas.
"""

custom_imports = dict(imports=["mmdet_backbone"], allow_failed_imports=False)

classes = {classes}

model = {model}
'''

_FOCAL = {"type": "FocalLoss", "use_sigmoid": True, "gamma": 2.0, "alpha": 0.25, "loss_weight": 1.0}
_SIGMOID = {"type": "CrossEntropyLoss", "use_sigmoid": True, "loss_weight": 1.0}
_L1 = {"type": "L1Loss", "loss_weight": 1.0}
_STRIDES = [8, 16, 32, 64, 128]


def mmdetection_config(trained: Trained, statistics: ImageStatistics) -> str:
    """Text of `mmdet_config.py`: the whole detector where mmdetection has it, else backbone and
    neck.

    Args:
        trained: the candidate.
        statistics: what its images are normalised by.
    """
    kind = trained.detector.name if trained.detector.neck == "fpn" else ""
    heads = {"fcos": _fcos, "atss": _atss, "faster_rcnn": _faster_rcnn}.get(kind)
    dense = trained.detector.name in {"fcos", "atss", "reppoints_v2"}
    model = {**_common(trained, statistics, first=int(dense)), **(heads(trained) if heads else {})}
    if heads:
        note = "The backbone has its trained weights; neck and head are to be trained."
    else:
        note = (
            f"It has no {trained.detector.name} with our {trained.detector.neck} neck: a detector "
            "type and heads are missing."
        )
    return _CONFIG.format(
        title=f"{trained.layout} in mmdetection.",
        note=note,
        classes=_classes(trained.categories),
        model=pformat(model, sort_dicts=False, width=100),
    )


def _classes(names: Sequence[str]) -> str:
    return "(\n" + "".join(f"    {python_text(name)},\n" for name in names) + ")"


def _common(trained: Trained, statistics: ImageStatistics, *, first: int) -> dict[str, Any]:
    channels = trained.detector.channels
    extra = {"add_extra_convs": "on_output", "relu_before_extra_convs": True} if first else {}
    return {
        "data_preprocessor": {
            "type": "DetDataPreprocessor",
            "mean": [round(255 * value, 3) for value in statistics.mean],
            "std": [round(255 * value, 3) for value in statistics.std],
            "bgr_to_rgb": True,
            "pad_size_divisor": 32,
        },
        "backbone": {
            "type": "ScratchNasBackbone",
            "weights": "{{ fileDirname }}/backbone.safetensors",
            "out_indices": tuple(range(first, 4)),
        },
        "neck": {
            "type": "FPN",
            "in_channels": list(trained.layout.widths[first:]),
            "out_channels": channels,
            "num_outs": 5,
            **extra,
        },
    }


def _dense(trained: Trained, kind: str) -> dict[str, Any]:
    channels = trained.detector.channels
    return {
        "type": kind,
        "num_classes": len(trained.categories),
        "in_channels": channels,
        "feat_channels": channels,
        "stacked_convs": 4,
        "loss_cls": _FOCAL,
        "loss_centerness": _SIGMOID,
    }


def _test_cfg(limits: DetectionLimits) -> dict[str, Any]:
    return {
        "score_thr": limits.score,
        "nms": {"type": "nms", "iou_threshold": limits.nms_iou},
        "max_per_img": limits.count,
    }


def _dense_test_cfg(trained: Trained) -> dict[str, Any]:
    return {"nms_pre": 1000, "min_bbox_size": 0, **_test_cfg(trained.detector.limits)}


def _fcos(trained: Trained) -> dict[str, Any]:
    head = _dense(trained, "FCOSHead") | {
        "strides": _STRIDES,
        "norm_on_bbox": True,
        "centerness_on_reg": True,
        "center_sampling": True,
        "center_sample_radius": 1.5,
        "loss_bbox": {"type": "GIoULoss", "loss_weight": 1.0},
        **_ranges(trained.detector.object_scale),
    }
    return {
        "type": "FCOS",
        "bbox_head": head,
        "test_cfg": _dense_test_cfg(trained),
    }


def _ranges(object_scale: float) -> dict[str, Any]:
    """FCOS's ranges, where they are not mmdetection's own."""
    if object_scale == 1:
        return {}
    limits = [-1.0, *(_plain(limit * object_scale) for limit in (64, 128, 256, 512)), 1e8]
    return {"regress_ranges": tuple(pairwise(limits))}


def _plain(number: float) -> float:
    return int(number) if number == int(number) else number


def _atss(trained: Trained) -> dict[str, Any]:
    anchors = {
        "type": "AnchorGenerator",
        "ratios": [1.0],
        "octave_base_scale": _plain(8 * trained.detector.object_scale),
        "scales_per_octave": 1,
        "strides": _STRIDES,
    }
    head = _dense(trained, "ATSSHead") | {
        "anchor_generator": anchors,
        "bbox_coder": _coder([0.1, 0.1, 0.2, 0.2]),
        "loss_bbox": {"type": "GIoULoss", "loss_weight": 2.0},
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
        "test_cfg": _dense_test_cfg(trained),
    }


def _faster_rcnn(trained: Trained) -> dict[str, Any]:
    limits = {"nms": {"type": "nms", "iou_threshold": 0.7}, "min_bbox_size": 0}
    training = {
        "rpn": _sampled((0.7, 0.3), low_quality=True, num=256, share=0.5, with_truth=False),
        "rpn_proposal": {"nms_pre": 2000, "max_per_img": 2000, **limits},
        "rcnn": _sampled(
            (0.5, 0.5),
            low_quality=False,
            num=trained.detector.regions,
            share=0.25,
            with_truth=True,
        ),
    }
    tested = {
        "rpn": {"nms_pre": 1000, "max_per_img": 1000, **limits},
        "rcnn": _test_cfg(trained.detector.limits),
    }
    return {
        "type": "FasterRCNN",
        "rpn_head": _rpn_head(trained),
        "roi_head": _roi_head(trained),
        "train_cfg": training,
        "test_cfg": tested,
    }


def _rpn_head(trained: Trained) -> dict[str, Any]:
    channels = trained.detector.channels
    return {
        "type": "RPNHead",
        "in_channels": channels,
        "feat_channels": channels,
        "anchor_generator": {
            "type": "AnchorGenerator",
            "scales": [_plain(8 * trained.detector.object_scale)],
            "ratios": [0.5, 1.0, 2.0],
            "strides": [4, 8, 16, 32, 64],
        },
        "bbox_coder": _coder([1.0, 1.0, 1.0, 1.0]),
        "loss_cls": _SIGMOID,
        "loss_bbox": _L1,
    }


def _roi_head(trained: Trained) -> dict[str, Any]:
    spec = trained.detector
    layer = (
        {"type": "RoIAlign", "output_size": 7, "sampling_ratio": 2, "aligned": False}
        if spec.roi_op == "align"
        else {"type": "RoIPool", "output_size": 7}
    )
    extractor = {
        "type": "SingleRoIExtractor",
        "roi_layer": layer,
        "out_channels": spec.channels,
        "featmap_strides": [4, 8, 16, 32],
    }
    box_head = {
        "type": "Shared2FCBBoxHead",
        "in_channels": spec.channels,
        "fc_out_channels": spec.hidden,
        "roi_feat_size": 7,
        "num_classes": len(trained.categories),
        "bbox_coder": _coder([0.1, 0.1, 0.2, 0.2]),
        "reg_class_agnostic": False,
        "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0},
        "loss_bbox": _L1,
    }
    return {"type": "StandardRoIHead", "bbox_roi_extractor": extractor, "bbox_head": box_head}


def _coder(deviations: list[float]) -> dict[str, Any]:
    return {"type": "DeltaXYWHBBoxCoder", "target_means": [0.0] * 4, "target_stds": deviations}


def _sampled(
    iou: tuple[float, float], *, low_quality: bool, num: int, share: float, with_truth: bool
) -> dict[str, Any]:
    return {
        "assigner": {
            "type": "MaxIoUAssigner",
            "pos_iou_thr": iou[0],
            "neg_iou_thr": iou[1],
            "min_pos_iou": iou[1],
            "match_low_quality": low_quality,
            "ignore_iof_thr": -1,
        },
        "sampler": {
            "type": "RandomSampler",
            "num": num,
            "pos_fraction": share,
            "neg_pos_ub": -1,
            "add_gt_as_proposals": with_truth,
        },
        "allowed_border": -1,
        "pos_weight": -1,
        "debug": False,
    }
