"""Parameters and multiply-adds of a candidate, counted on meta tensors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from nas.detectors import Detector, build_detector
from nas.detectors.faster_rcnn import ROI_SIZE, FasterRcnn
from nas.spec import DetectorSpec
from search_spaces.layout import Layout

PROPOSALS = 1000  # of one image, as in the published counts of two-stage detectors
RULE = "multiply-adds of convolutions, linear maps and attention products; norms and activations not counted"


@dataclass(frozen=True)
class Cost:
    """Size of a network and work for one image; `flops` by `RULE`."""

    params: int
    backbone_params: int
    flops: int
    image_size: tuple[int, int]


@lru_cache(maxsize=4096)
def count_cost(layout: Layout, detector: DetectorSpec, num_classes: int, image_size: tuple[int, int]) -> Cost:
    """Count a detector on one image of (height, width) pixels, multiples of 32."""
    with torch.device("meta"):
        network = build_detector(layout, detector, num_classes).eval()
        image = torch.empty(1, 3, *image_size)
    return Cost(
        params=sum(parameter.numel() for parameter in network.parameters()),
        backbone_params=sum(parameter.numel() for parameter in network.backbone.backbone.parameters()),
        flops=multiply_adds(network, image),
        image_size=image_size,
    )


@torch.no_grad()
def multiply_adds(network: Detector, images: Tensor) -> int:
    """Multiply-adds of backbone, neck and heads, by `RULE`; a two-stage detector with `PROPOSALS` regions an image."""
    with FlopCounterMode(display=False) as counter:
        features = network.backbone(images)
        if isinstance(network, FasterRcnn):
            network.rpn.head(list(features.values()))
            regions = images.new_empty(PROPOSALS * len(images), network.backbone.out_channels, ROI_SIZE, ROI_SIZE)
            network.roi_heads.box_predictor(network.roi_heads.box_head(regions))
        else:
            network.head(list(features.values()))
    return counter.get_total_flops() // 2
