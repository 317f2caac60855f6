"""Cascade Mask R-CNN's published counts, part by part. Table 5 of the paper takes them from the
Swin paper: ResNet-50 82M and 739G, Swin-T 86M and 745G; mmdetection's `get_flops` was measured at
742.36G for the latter.

| part | parameters | multiply-adds, 800 x 1280 | |
| --- | --- | --- | --- |
| Faster R-CNN with Swin-T, without its two layers and predictors | 30.8446M | 196.404G | Table 2 |
| box heads, 3 x 1000 boxes | 46.8553M | 386.737G | 4 convolutions, 1 layer; no norms |
| mask heads, 3 x 100 boxes | 7.9298M | 159.217G | 4 convolutions, 1 transposed, 1 x 1 |
| sum | 85.6298M | 742.359G | 86M; 742.36G as measured |
| attention products, which `get_flops` leaves out | | 3.105G | 745G with them, as printed |
"""

from __future__ import annotations

import pytest
import torch

from nas.config.sections import DetectorSpec
from nas.models.detectors import build_detector
from nas.profiling.flops import count_cost
from nas.profiling.paper_tables import paper_rows
from search_spaces.layout import Layout

SWIN_T, RESNET_50 = Layout.parse("T2-T2-T6-T2"), Layout.parse("C3-C4-C6-C3@256")
SIZE = (800, 1280)
CASCADE, FASTER = DetectorSpec(name="cascade_mask_rcnn"), DetectorSpec(name="faster_rcnn")

CONVOLUTION, NORM, CELLS = 256 * 256 * 9, 2 * 256, 7 * 7
BOX_LAYERS = {
    "convolutions": 4 * (CONVOLUTION + NORM),
    "fully connected": 256 * CELLS * 1024 + 1024,
    "classes": 1024 * 81 + 81,
    "boxes": 1024 * 320 + 320,
}
MASK_LAYERS = {
    "convolutions": 4 * (CONVOLUTION + 256),
    "transposed": 256 * 256 * 4 + 256,
    "masks": 256 * 80 + 80,
}
TWO_LAYERS = (
    256 * CELLS * 1024 + 1024 + 1024 * 1024 + 1024 + BOX_LAYERS["classes"] + BOX_LAYERS["boxes"]
)

BOX_FLOPS = (
    4
    * (
        CONVOLUTION * CELLS + 256 * CELLS
    )  # with their ReLU; no bias, and norms that are not counted
    + 256 * CELLS * 1024
    + 1024  # with its ReLU; biases of linear maps are not counted
    + 1024 * (81 + 320)
)
MASK_FLOPS = (
    4 * (CONVOLUTION * 14**2 + 2 * 256 * 14**2)  # bias and ReLU
    + 256 * 256 * 4 * 14**2
    + 2 * 256 * 28**2
    + 256 * 80 * 28**2
    + 80 * 28**2
)
TWO_LAYERS_FLOPS = 256 * CELLS * 1024 + 1024 * 1024 + 1024 * (81 + 320)


def attention_products(
    depths: tuple[int, ...] = (2, 2, 6, 2), width: int = 96, window: int = 7
) -> int:
    """Multiply-adds of queries with keys and of weights with values, on maps padded to whole
    windows.
    """
    total = 0
    for stage, depth in enumerate(depths):
        height, length = (side // 4 // 2**stage for side in SIZE)
        tokens = (height + -height % window) * (length + -length % window)
        total += depth * 2 * tokens * window**2 * width * 2**stage
    return total


def test_every_layer_of_the_heads():
    with torch.device("meta"):
        detector = build_detector(RESNET_50, CASCADE, 80)
    for stage in detector.roi_heads.stages:
        counts = {
            name: sum(p.numel() for p in part.parameters()) for name, part in stage.named_children()
        }
        assert counts == {
            "box_roi_pool": 0,
            "mask_roi_pool": 0,
            "box_head": BOX_LAYERS["convolutions"] + BOX_LAYERS["fully connected"],
            "box_predictor": BOX_LAYERS["classes"] + BOX_LAYERS["boxes"],
            "mask_head": MASK_LAYERS["convolutions"],
            "mask_predictor": MASK_LAYERS["transposed"] + MASK_LAYERS["masks"],
        }


@pytest.mark.parametrize(
    ("layout", "printed_m", "printed_g"), [(RESNET_50, 82, 739), (SWIN_T, 86, 745)]
)
def test_the_published_counts(layout: Layout, printed_m: int, printed_g: int):
    counted, faster = (count_cost(layout, spec, 80, SIZE) for spec in (CASCADE, FASTER))
    stages = 3 * (sum(BOX_LAYERS.values()) + sum(MASK_LAYERS.values()))
    assert (stages, TWO_LAYERS) == (54_785_187, 14_306_705)
    assert counted.params == faster.params - TWO_LAYERS + stages
    assert round(counted.params / 1e6) == printed_m
    heads = 3 * (1000 * BOX_FLOPS + 100 * MASK_FLOPS)
    assert counted.paper_flops == faster.paper_flops - 1000 * TWO_LAYERS_FLOPS + heads
    products = attention_products() if layout == SWIN_T else 0
    assert round((counted.paper_flops + products) / 1e9) == printed_g


def test_the_parts_of_the_table_above():
    counted, faster = (count_cost(SWIN_T, spec, 80, SIZE) for spec in (CASCADE, FASTER))
    rest = (
        (faster.params - TWO_LAYERS) / 1e6,
        (faster.paper_flops - 1000 * TWO_LAYERS_FLOPS) / 1e9,
    )
    boxes = (3 * sum(BOX_LAYERS.values()) / 1e6, 3000 * BOX_FLOPS / 1e9)
    masks = (3 * sum(MASK_LAYERS.values()) / 1e6, 300 * MASK_FLOPS / 1e9)
    whole = (counted.params / 1e6, counted.paper_flops / 1e9)
    for part in (rest, boxes, masks, whole):
        assert f"| {part[0]:.4f}M | {part[1]:.3f}G |" in (__doc__ or "")
    assert f"| {attention_products() / 1e9:.3f}G |" in (__doc__ or "")
    assert round(counted.paper_flops / 1e9, 2) == 742.36


def test_boxes_alone_are_what_is_left_without_the_mask_heads():
    counted, boxes_only = (
        count_cost(SWIN_T, CASCADE.model_copy(update={"masks": masks}), 80, SIZE)
        for masks in (True, False)
    )
    assert counted.params - boxes_only.params == 3 * sum(MASK_LAYERS.values())
    assert counted.paper_flops - boxes_only.paper_flops == 300 * MASK_FLOPS


def test_table_5():
    rows = {
        row["layout"]: row for row in paper_rows((5,)) if row["detector"] == "cascade_mask_rcnn"
    }
    assert rows["C3-C4-C6-C3@256"]["deviation"] == {"params_m": -0.2315, "flops_g": 0.2868}
    assert rows["T2-T2-T6-T2"]["deviation"] == {"params_m": 0.3702, "flops_g": 2.6413}
    assert "attention" in rows["T2-T2-T6-T2"]["note"]
    assert rows["C2-C2-T12-T4"]["deviation"] == {"params_m": -19.4052, "flops_g": -52.9455}
