"""Sparse R-CNN in mmdetection's configuration."""

from __future__ import annotations

from nas.export.description import Trained
from nas.export.mmdetection.common import FOCAL, Config, box_coder, giou
from nas.export.mmdetection.region_heads import region_extractor
from nas.models.detectors.faster_rcnn import ROI_SIZE
from nas.models.detectors.sparse_rcnn_head import (
    CLS_LAYERS,
    DYNAMIC_RATIO,
    HEADS,
    HIDDEN_RATIO,
    REG_LAYERS,
    STAGES,
)
from nas.models.detectors.sparse_rcnn_loss import CLS_WEIGHT, GIOU_WEIGHT, L1_WEIGHT


def sparse_rcnn(trained: Trained) -> Config:
    """Write Sparse R-CNN, without backbone and neck."""
    spec, limits = trained.detector, trained.detector.limits
    heads = {
        "type": "ScratchNasSparseRoIHead",
        "num_stages": STAGES,
        "stage_loss_weights": [1] * STAGES,
        "proposal_feature_channel": spec.channels,
        "bbox_roi_extractor": region_extractor(trained, ROI_SIZE),
        "bbox_head": [_stage(trained)] * STAGES,
    }
    most = spec.proposals * len(trained.categories)
    tested = {"max_per_img": min(limits.count, most), "score_thr": limits.score}
    return {
        "type": "SparseRCNN",
        "rpn_head": {
            "type": "EmbeddingRPNHead",
            "num_proposals": spec.proposals,
            "proposal_feature_channel": spec.channels,
        },
        "roi_head": heads,
        "train_cfg": {"rpn": None, "rcnn": [_matched()] * STAGES},
        "test_cfg": {"rpn": None, "rcnn": tested},
    }


def _stage(trained: Trained) -> Config:
    channels = trained.detector.channels
    return {
        "type": "DIIHead",
        "num_classes": len(trained.categories),
        "num_ffn_fcs": 2,
        "num_heads": HEADS,
        "num_cls_fcs": CLS_LAYERS,
        "num_reg_fcs": REG_LAYERS,
        "feedforward_channels": HIDDEN_RATIO * channels,
        "in_channels": channels,
        "dropout": 0.0,
        "ffn_act_cfg": {"type": "ReLU", "inplace": True},
        "dynamic_conv_cfg": {
            "type": "DynamicConv",
            "in_channels": channels,
            "feat_channels": channels // DYNAMIC_RATIO,
            "out_channels": channels,
            "input_feat_shape": ROI_SIZE,
            "act_cfg": {"type": "ReLU", "inplace": True},
            "norm_cfg": {"type": "LN"},
        },
        "loss_bbox": {"type": "L1Loss", "loss_weight": L1_WEIGHT},
        "loss_iou": giou(GIOU_WEIGHT),
        "loss_cls": {**FOCAL, "loss_weight": CLS_WEIGHT},
        "bbox_coder": {
            **box_coder([0.5, 0.5, 1.0, 1.0], clip_border=False),
            "type": "ScratchNasBBoxCoder",
        },
    }


def _matched() -> Config:
    costs = [
        {"type": "FocalLossCost", "weight": CLS_WEIGHT},
        {"type": "BBoxL1Cost", "weight": L1_WEIGHT, "box_format": "xyxy"},
        {"type": "IoUCost", "iou_mode": "giou", "weight": GIOU_WEIGHT},
    ]
    return {
        "assigner": {"type": "HungarianAssigner", "match_costs": costs},
        "sampler": {"type": "PseudoSampler"},
        "pos_weight": 1,
    }
