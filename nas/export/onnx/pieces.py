"""What the detectors' heads have in common as ONNX.

A piece of a head is traced for sizes that it does not know, also for numbers of regions that only
the image decides. What torchvision selects by masks is ranked and cut: what does not count gets a
score below all others, is last in every ranking, suppresses nothing, and is cut off at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import nms, roi_align, roi_pool

from nas.models.detectors.faster_rcnn import PyramidRoIPool

OUT = -1.0  # score of what does not count
Found = tuple[Tensor, Tensor, Tensor]  # boxes [N, 4], scores [N], labels [N]


class Value(NamedTuple):
    """A value of a graph: its name, and a tensor like it."""

    name: str
    example: Tensor


@torch.no_grad()
def append(
    graph: Any,
    piece: nn.Module,
    name: str,
    inputs: Sequence[Value],
    outputs: Sequence[Tensor] = (),
    *,
    key: str = "",
    weights: str = "",
) -> list[Value]:
    """Append a piece to a graph whose values have their channels in dimension 1.

    Args:
        graph: an `OnnxGraph`.
        piece, name, key, weights: as of `OnnxGraph.add`.
        inputs: what it takes.
        outputs: tensors like what it gives; default: what it gives for its inputs' examples. A
            number that the image decides is to be 2 or more in them.

    Returns:
        What it gives.
    """
    examples = [value.example for value in inputs]
    if not outputs:
        given = piece(*examples)
        outputs = [given] if isinstance(given, Tensor) else given
    names = graph.add(
        piece, name, [value.name for value in inputs], examples, key=key, weights=weights
    )
    return [Value(name, example) for name, example in zip(names, outputs, strict=True)]


def like_found() -> Found:
    """Tensors like boxes, scores and labels of a few objects."""
    return torch.rand(6, 4), torch.rand(6), torch.ones(6, dtype=torch.int64)


class Neck(nn.Module):
    """The backbone's maps to the levels [1, C, H_i, W_i] of the pyramid."""

    def __init__(self, pyramid: Any) -> None:
        super().__init__()
        self.fpn = pyramid.fpn

    def forward(self, *maps: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.fpn({str(index): x for index, x in enumerate(maps)}).values())


class Suppressed(nn.Module):
    """Boxes, scores and labels of each level, one level after the other, to detections.

    Args:
        limit: IoU of suppression.
        count: of detections, at most.
    """

    def __init__(self, limit: float, count: int) -> None:
        super().__init__()
        self.limit, self.count = limit, count

    def forward(self, *found: Tensor) -> Found:
        boxes, scores, labels = (torch.cat(found[index::3]) for index in range(3))
        return suppressed((boxes, scores, labels), self.limit, self.count)


def suppressed(found: Found, limit: float, count: int) -> Found:
    """Suppress within each label, and take the first `count` by score, without those that do not
    count.
    """
    boxes, scores, labels = found
    apart = labels.to(boxes) * (boxes.max() + 1)
    kept = nms(boxes + apart[:, None], scores, limit)
    kept = kept[scores[kept] > OUT][:count]
    return boxes[kept], scores[kept], labels[kept]


def ranked(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The best of scores [N], `count` at most, and their indices."""
    best, order = scores.topk(torch.sym_min(count, scores.shape[0]))
    return best, order


def anchors_of(generator: Any, image: Tensor, *levels: Tensor) -> Tensor:
    """Anchors [N, 4] of all levels [1, ..., H_i, W_i] of an image [1, 3, H, W]."""
    anchors: Tensor = generator(ImageList(image, [image.shape[2:]]), levels)[0]
    return anchors


def pooled(pool: Any, levels: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """Pool each box from the level that fits it. All are pooled from every level, and the others'
    results left: how many fit a level is not known to a graph.

    Args:
        pool: a `PyramidRoIAlign`, or a `PyramidRoIPool`.
        levels: maps [1, C, H_i, W_i] of the pyramid.
        boxes: [R, 4], pixels.

    Returns:
        [R, C, S, S].
    """
    fits = pool.map_levels([boxes])
    rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], dim=1)
    found: Any = 0.0
    for index, (level, scale) in enumerate(zip(levels, pool.scales, strict=True)):
        here = (
            roi_pool(level, rois, pool.output_size, scale)
            if isinstance(pool, PyramidRoIPool)
            else roi_align(level, rois, pool.output_size, scale, pool.sampling_ratio)
        )
        found = found + here * (fits == index).to(here)[:, None, None, None]
    regions: Tensor = found
    return regions
