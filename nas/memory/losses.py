"""The training loss of a detector with every size that data decides set to its configured limit, so that it runs on meta
tensors.

Bounded, not traced: Faster R-CNN's proposals (as many as are sampled for each image, all pooled from the finest level) and
FCOS's positives (every location). Left out: the region proposal network's own selection, whose tensors are gone before the
peak.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.fx.experimental._config as fx_config
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.ops import roi_align, roi_pool

from nas.detectors import Detector
from nas.detectors.faster_rcnn import ROI_SIZE, FasterRcnn, PyramidRoIPool
from nas.detectors.fcos import Fcos


def bounded_loss(detector: Detector, levels: Sequence[Tensor], images: Tensor, boxes_per_image: int) -> Tensor:
    """The training loss on the pyramid of a batch [B, 3, H, W] with `boxes_per_image` targets each: its value means nothing,
    its tensors count.

    Runs, and is differentiated, under `every_mask_full`.
    """
    if isinstance(detector, Fcos):
        return torch.stack(_fcos_losses(detector, levels, images, boxes_per_image)).sum()
    return torch.stack(_faster_rcnn_losses(detector, levels, images)).sum()


def _fcos_losses(detector: Fcos, levels: Sequence[Tensor], images: Tensor, boxes_per_image: int) -> list[Tensor]:
    outputs = detector.head(levels)
    anchors = detector.anchor_generator(ImageList(images, [tuple(images.shape[-2:])] * len(images)), levels)
    targets = [_targets(images, boxes_per_image) for _ in range(len(images))]
    counts = [level.shape[2] * level.shape[3] for level in levels]
    return [loss.float() for loss in detector.compute_loss(targets, outputs, anchors, counts).values()]


def _faster_rcnn_losses(detector: FasterRcnn, levels: Sequence[Tensor], images: Tensor) -> list[Tensor]:
    objectness, deltas = detector.rpn.head(list(levels))
    heads, sampled = detector.roi_heads, detector.roi_heads.fg_bg_sampler.batch_size_per_image
    rois = images.new_zeros(len(images) * sampled, 5)
    if isinstance(heads.box_roi_pool, PyramidRoIPool):
        pooled = roi_pool(levels[0], rois, (ROI_SIZE, ROI_SIZE), 0.25)
    else:
        pooled = roi_align(levels[0], rois, (ROI_SIZE, ROI_SIZE), 0.25, sampling_ratio=2)
    logits, offsets = heads.box_predictor(heads.box_head(pooled))
    labels = torch.zeros(len(rois), dtype=torch.int64, device=images.device)
    rpn = [torch.cat([level.flatten() for level in maps]).float().square().mean() for maps in (objectness, deltas)]
    return [*rpn, *fastrcnn_loss(logits, offsets, [labels], [images.new_zeros(len(rois), 4)])]


def _targets(images: Tensor, count: int) -> dict[str, Tensor]:
    return {"boxes": images.new_zeros(count, 4), "labels": torch.ones(count, dtype=torch.int64, device=images.device)}


@contextmanager
def every_mask_full() -> Iterator[None]:
    """`nonzero` of a meta mask has every element."""
    before = fx_config.meta_nonzero_assume_all_nonzero
    fx_config.meta_nonzero_assume_all_nonzero = True
    try:
        yield
    finally:
        fx_config.meta_nonzero_assume_all_nonzero = before
