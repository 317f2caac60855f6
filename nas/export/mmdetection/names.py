"""What mmdetection calls the modules of a detector: beginnings of the names of our weights, and
what stands there in mmdetection 3.
"""

from __future__ import annotations

from collections.abc import Callable

from nas.config.sections import DetectorSpec
from nas.models.detectors.cascade_heads import IOUS
from nas.models.detectors.cascade_stage import CONVOLUTIONS
from nas.models.detectors.dense_head import TOWER_DEPTH
from nas.models.detectors.sparse_rcnn_head import CLS_LAYERS, REG_LAYERS, STAGES

Names = dict[str, str]


def mmdetection_names(spec: DetectorSpec) -> Names:
    """Make the names of a detector, for `nas.export.mmdetection.weights.renamed`; empty where
    mmdetection does not have the detector with its neck.
    """
    make = _MAKERS.get(spec.name) if spec.neck == "fpn" else None
    return {"backbone.backbone.": "backbone.backbone.", **make()} if make else {}


def _pyramid(maps: int, *, convolutions: bool = False) -> Names:
    names = {}
    for level in range(maps):
        names[f"backbone.fpn.inner_blocks.{level}.0."] = f"neck.lateral_convs.{level}.conv."
        names[f"backbone.fpn.layer_blocks.{level}.0."] = f"neck.fpn_convs.{level}.conv."
    if convolutions:
        names["backbone.fpn.extra_blocks.p6."] = f"neck.fpn_convs.{maps}.conv."
        names["backbone.fpn.extra_blocks.p7."] = f"neck.fpn_convs.{maps + 1}.conv."
    return names


def _tower(ours: str, theirs: str) -> Names:
    names = {}
    for index in range(TOWER_DEPTH):
        names[f"{ours}{3 * index}."] = f"{theirs}{index}.conv."
        names[f"{ours}{3 * index + 1}."] = f"{theirs}{index}.gn."
    return names


def _dense(classes: str, boxes: str, centerness: str) -> Names:
    return {
        **_pyramid(3, convolutions=True),
        **_tower("head.classification_head.conv.", "bbox_head.cls_convs."),
        **_tower("head.regression_head.conv.", "bbox_head.reg_convs."),
        "head.classification_head.cls_logits.": f"bbox_head.{classes}.",
        "head.regression_head.bbox_reg.": f"bbox_head.{boxes}.",
        "head.regression_head.bbox_ctrness.": f"bbox_head.{centerness}.",
        "head.regression_head.scales": "bbox_head.scales",
    }


def _fcos() -> Names:
    return _dense("conv_cls", "conv_reg", "conv_centerness")


def _atss() -> Names:
    return _dense("atss_cls", "atss_reg", "atss_centerness")


def _proposals() -> Names:
    return {
        **_pyramid(4),
        "rpn.head.conv.0.0.": "rpn_head.rpn_conv.",
        "rpn.head.cls_logits.": "rpn_head.rpn_cls.",
        "rpn.head.bbox_pred.": "rpn_head.rpn_reg.",
    }


def _faster_rcnn() -> Names:
    return {
        **_proposals(),
        "roi_heads.box_head.fc6.": "roi_head.bbox_head.shared_fcs.0.",
        "roi_heads.box_head.fc7.": "roi_head.bbox_head.shared_fcs.1.",
        "roi_heads.box_predictor.cls_score.": "roi_head.bbox_head.fc_cls.",
        "roi_heads.box_predictor.bbox_pred.": "roi_head.bbox_head.fc_reg.",
    }


def _cascade() -> Names:
    names = _proposals()
    for stage in range(len(IOUS)):
        ours, boxes = f"roi_heads.stages.{stage}.", f"roi_head.bbox_head.{stage}."
        masks = f"roi_head.mask_head.{stage}."
        for index in range(CONVOLUTIONS):
            names[f"{ours}box_head.{index}.0."] = f"{boxes}shared_convs.{index}.conv."
            names[f"{ours}box_head.{index}.1."] = f"{boxes}shared_convs.{index}.bn."
            names[f"{ours}mask_head.{index}.0."] = f"{masks}convs.{index}.conv."
        names |= {
            f"{ours}box_head.{CONVOLUTIONS + 1}.": f"{boxes}shared_fcs.0.",
            f"{ours}box_predictor.cls_score.": f"{boxes}fc_cls.",
            f"{ours}box_predictor.bbox_pred.": f"{boxes}fc_reg.",
            f"{ours}mask_predictor.conv5_mask.": f"{masks}upsample.",
            f"{ours}mask_predictor.mask_fcn_logits.": f"{masks}conv_logits.",
        }
    return names


_SPARSE_STAGE = {
    "self_attention.qkv.weight": "attention.attn.in_proj_weight",
    "self_attention.qkv.bias": "attention.attn.in_proj_bias",
    "self_attention.proj.": "attention.attn.out_proj.",
    "interaction.dynamic.": "instance_interactive_conv.dynamic_layer.",
    "interaction.norm1.": "instance_interactive_conv.norm_in.",
    "interaction.norm2.": "instance_interactive_conv.norm_out.",
    "interaction.out.": "instance_interactive_conv.fc_layer.",
    "interaction.norm3.": "instance_interactive_conv.fc_norm.",
    "ffn.0.": "ffn.layers.0.0.",
    "ffn.3.": "ffn.layers.1.",
    "norm1.": "attention_norm.",
    "norm2.": "instance_interactive_conv_norm.",
    "norm3.": "ffn_norm.",
    "cls_logits.": "fc_cls.",
    "bbox_pred.": "fc_reg.",
    **{
        f"{kind}_tower.{3 * layer + part}.": f"{kind}_fcs.{3 * layer + part}."
        for kind, depth in (("cls", CLS_LAYERS), ("reg", REG_LAYERS))
        for layer in range(depth)
        for part in (0, 1)
    },
}


def _sparse_rcnn() -> Names:
    names = {
        **_pyramid(4),
        "head.proposal_boxes": "rpn_head.init_proposal_bboxes.weight",
        "head.proposal_features": "rpn_head.init_proposal_features.weight",
    }
    for stage in range(STAGES):
        for ours, theirs in _SPARSE_STAGE.items():
            names[f"head.stages.{stage}.{ours}"] = f"roi_head.bbox_head.{stage}.{theirs}"
    return names


_MAKERS: dict[str, Callable[[], Names]] = {
    "fcos": _fcos,
    "atss": _atss,
    "faster_rcnn": _faster_rcnn,
    "cascade_mask_rcnn": _cascade,
    "sparse_rcnn": _sparse_rcnn,
}
