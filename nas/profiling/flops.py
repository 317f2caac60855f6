"""Parameters and multiply-adds of a candidate, by two rules."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache

from nas.config.sections import DetectorSpec
from nas.profiling import SOURCES
from nas.utils.disk_cache import DiskCache
from search_spaces.layout import Layout

COSTS = DiskCache("costs", SOURCES)
RULE = (
    "fvcore's count: multiply-adds of convolutions, linear maps and attention products, and for "
    "each element 2 of a batch "
    "norm, 5 of a layer or group norm, 1 of an upsampled map; 4 for each value that a deformable "
    "convolution samples"
)
PAPER_RULE = (
    "multiply-adds of convolutions with their biases and of linear maps, 2 for each element of a "
    "norm, 1 for each of a ReLU or "
    "pooling, 4 for each value that a deformable convolution samples; not counted are attention "
    "products, synchronised norms "
    "and the linear maps of attention between proposals"
)


@dataclass(frozen=True)
class Cost:
    """Size of a detector and its work for one image.

    Args:
        params: parameters, frozen ones too.
        backbone_params: those of its backbone.
        flops: multiply-adds by `RULE`.
        paper_flops: multiply-adds by `PAPER_RULE`, which the paper's tables follow.
        image_size: height and width of the image, pixels.
    """

    params: int
    backbone_params: int
    flops: int
    paper_flops: int
    image_size: tuple[int, int]


@lru_cache(maxsize=4096)
def count_cost(
    layout: Layout, detector: DetectorSpec, num_classes: int, image_size: tuple[int, int]
) -> Cost:
    """Count a detector on one image of (height, width) pixels, multiples of 32.

    What was counted before is kept on disk, so that PyTorch is not needed for it.
    """
    key = [str(layout), detector.model_dump(), num_classes, image_size]
    fields = COSTS.get_or_make(
        key, lambda: asdict(_counted(layout, detector, num_classes, image_size))
    )
    return Cost(**{**fields, "image_size": image_size})


def _counted(
    layout: Layout, detector: DetectorSpec, num_classes: int, image_size: tuple[int, int]
) -> Cost:
    from nas.profiling.flop_counter import count_detector

    params, backbone, flops, by_paper = count_detector(layout, detector, num_classes, image_size)
    return Cost(params, backbone, flops, by_paper, image_size)
