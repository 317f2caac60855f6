"""Faster R-CNN and Cascade Mask R-CNN in mmdetection's configuration."""

from __future__ import annotations

from nas.export.description import Trained
from nas.export.mmdetection.common import (
    SIGMOID,
    SOFTMAX,
    Config,
    box_coder,
    giou,
    plain,
    suppressed,
)
from nas.models.detectors.cascade_heads import BOX_WEIGHTS, IOUS, LOSS_WEIGHTS
from nas.models.detectors.cascade_stage import CONVOLUTIONS, GIOU_WEIGHT, MASK_ROI_SIZE
from nas.models.detectors.faster_rcnn import (
    ANCHOR_SCALE,
    ASPECT_RATIOS,
    POSITIVE_SHARE,
    ROI_LEVELS,
    ROI_SIZE,
    STRIDES,
)
from nas.models.detectors.mask_head import MASK_SIZE
from nas.models.detectors.region_losses import BETA

_SMOOTH_L1 = {"type": "SmoothL1Loss", "beta": BETA, "loss_weight": 1.0}
_PROPOSED = {"nms": {"type": "nms", "iou_threshold": 0.7}, "min_bbox_size": 1e-3}


def faster_rcnn(trained: Trained) -> Config:
    """Write Faster R-CNN, without backbone and neck."""
    heads = {
        "type": "StandardRoIHead",
        "bbox_roi_extractor": region_extractor(trained, ROI_SIZE),
        "bbox_head": {
            "type": "Shared2FCBBoxHead",
            **_box_head(trained),
            "bbox_coder": box_coder([0.1, 0.1, 0.2, 0.2]),
            "loss_bbox": _SMOOTH_L1,
        },
    }
    regions = _sampled((0.5, 0.5), num=trained.detector.regions, share=POSITIVE_SHARE)
    return _two_stage(trained, "FasterRCNN", heads, regions)


def cascade_mask_rcnn(trained: Trained) -> Config:
    """Write Cascade Mask R-CNN, or Cascade R-CNN where there are no masks, without backbone and
    neck.
    """
    spec = trained.detector
    heads = {
        "type": "CascadeRoIHead",
        "num_stages": len(IOUS),
        "stage_loss_weights": list(LOSS_WEIGHTS),
        "bbox_roi_extractor": region_extractor(trained, ROI_SIZE),
        "bbox_head": [_cascade_box_head(trained, weights) for weights in BOX_WEIGHTS],
        **(_masks(trained) if spec.learns_masks else {}),
    }
    masks = {"mask_size": MASK_SIZE} if spec.learns_masks else {}
    regions = [
        {**_sampled((iou, iou), num=spec.regions, share=POSITIVE_SHARE), **masks} for iou in IOUS
    ]
    return _two_stage(trained, "CascadeRCNN", heads, regions)


def region_extractor(trained: Trained, size: int) -> Config:
    """Write what cuts regions of `size` x `size` cells out of the pyramid."""
    spec = trained.detector
    layer = (
        {"type": "RoIPool", "output_size": size}
        if spec.name == "faster_rcnn" and spec.roi_op == "pool"
        else {"type": "RoIAlign", "output_size": size, "sampling_ratio": 2, "aligned": False}
    )
    return {
        "type": "SingleRoIExtractor",
        "roi_layer": layer,
        "out_channels": spec.channels,
        "featmap_strides": list(STRIDES[:ROI_LEVELS]),
    }


def _two_stage(
    trained: Trained, kind: str, heads: Config, regions: Config | list[Config]
) -> Config:
    proposals = _sampled((0.7, 0.3), num=256, share=0.5, proposals=True)
    masks = {"mask_thr_binary": 0.5} if trained.detector.learns_masks else {}
    return {
        "type": kind,
        "rpn_head": _rpn_head(trained),
        "roi_head": heads,
        "train_cfg": {
            "rpn": proposals,
            "rpn_proposal": {"nms_pre": 2000, "max_per_img": 2000, **_PROPOSED},
            "rcnn": regions,
        },
        "test_cfg": {
            "rpn": {"nms_pre": 1000, "max_per_img": 1000, **_PROPOSED},
            "rcnn": {**suppressed(trained.detector.limits), **masks},
        },
    }


def _rpn_head(trained: Trained) -> Config:
    channels = trained.detector.channels
    return {
        "type": "RPNHead",
        "in_channels": channels,
        "feat_channels": channels,
        "anchor_generator": {
            "type": "ScratchNasAnchors",
            "scales": [plain(ANCHOR_SCALE * trained.detector.object_scale)],
            "ratios": list(ASPECT_RATIOS),
            "strides": list(STRIDES),
        },
        "bbox_coder": box_coder([1.0, 1.0, 1.0, 1.0]),
        "loss_cls": SIGMOID,
        "loss_bbox": _SMOOTH_L1,
    }


def _box_head(trained: Trained) -> Config:
    return {
        "in_channels": trained.detector.channels,
        "fc_out_channels": trained.detector.hidden,
        "roi_feat_size": ROI_SIZE,
        "num_classes": len(trained.categories),
        "reg_class_agnostic": False,
        "loss_cls": SOFTMAX,
    }


def _cascade_box_head(trained: Trained, weights: tuple[float, ...]) -> Config:
    return {
        "type": "ScratchNasCascadeBBoxHead",
        **_box_head(trained),
        "num_shared_convs": CONVOLUTIONS,
        "num_shared_fcs": 1,
        "conv_out_channels": trained.detector.channels,
        "norm_cfg": {"type": "BN"},
        "bbox_coder": box_coder([1 / weight for weight in weights]),
        "reg_decoded_bbox": True,
        "loss_bbox": giou(GIOU_WEIGHT),
    }


def _masks(trained: Trained) -> Config:
    channels = trained.detector.channels
    return {
        "mask_roi_extractor": region_extractor(trained, MASK_ROI_SIZE),
        "mask_head": {
            "type": "ScratchNasMaskHead",
            "num_convs": CONVOLUTIONS,
            "in_channels": channels,
            "conv_out_channels": channels,
            "num_classes": len(trained.categories),
            "loss_mask": {"type": "CrossEntropyLoss", "use_mask": True, "loss_weight": 1.0},
        },
    }


def _sampled(
    iou: tuple[float, float], *, num: int, share: float, proposals: bool = False
) -> Config:
    """What is learnt from: of all anchors for `proposals`, of these and the objects elsewhere."""
    return {
        "assigner": {
            "type": "MaxIoUAssigner",
            "pos_iou_thr": iou[0],
            "neg_iou_thr": iou[1],
            "min_pos_iou": iou[1],
            "match_low_quality": proposals,
            "ignore_iof_thr": -1,
        },
        "sampler": {
            "type": "RandomSampler",
            "num": num,
            "pos_fraction": share,
            "neg_pos_ub": -1,
            "add_gt_as_proposals": not proposals,
        },
        "allowed_border": -1,
        "pos_weight": -1,
        "debug": False,
    }
