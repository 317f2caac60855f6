"""One training step of a detector with every size that data decides set to its configured limit, so that it runs on meta
tensors.

Bounded, not traced: Faster R-CNN's proposals (as many as are sampled for each image, all pooled from the finest level) and
FCOS's positives (every location). Left out: the region proposal network's own selection, whose tensors are gone before the
peak.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.fx.experimental._config as fx_config
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.ops import roi_align, roi_pool

from nas.detectors import Detector
from nas.detectors.faster_rcnn import ROI_SIZE, FasterRcnn, PyramidRoIPool
from nas.detectors.fcos import Fcos


def bounded_loss(detector: Detector, images: Tensor, boxes_per_image: int) -> Tensor:
    """The training loss on a batch [B, 3, H, W] with `boxes_per_image` targets each: its value means nothing, its tensors
    count.

    Runs, and is differentiated, under `every_mask_full`.
    """
    if isinstance(detector, Fcos):
        return torch.stack(_fcos_losses(detector, images, boxes_per_image)).sum()
    return torch.stack(_faster_rcnn_losses(detector, images)).sum()


def _fcos_losses(detector: Fcos, images: Tensor, boxes_per_image: int) -> list[Tensor]:
    levels = list(detector.backbone(images).values())
    outputs = detector.head(levels)
    anchors = detector.anchor_generator(ImageList(images, [tuple(images.shape[-2:])] * len(images)), levels)
    targets = [_targets(images, boxes_per_image) for _ in range(len(images))]
    counts = [level.shape[2] * level.shape[3] for level in levels]
    return list(detector.compute_loss(targets, outputs, anchors, counts).values())


def _faster_rcnn_losses(detector: FasterRcnn, images: Tensor) -> list[Tensor]:
    features = detector.backbone(images)
    objectness, deltas = detector.rpn.head(list(features.values()))
    heads, sampled = detector.roi_heads, detector.roi_heads.fg_bg_sampler.batch_size_per_image
    rois = images.new_zeros(len(images) * sampled, 5)
    if isinstance(heads.box_roi_pool, PyramidRoIPool):
        pooled = roi_pool(features["0"], rois, (ROI_SIZE, ROI_SIZE), 0.25)
    else:
        pooled = roi_align(features["0"], rois, (ROI_SIZE, ROI_SIZE), 0.25, sampling_ratio=2)
    logits, offsets = heads.box_predictor(heads.box_head(pooled))
    labels = torch.zeros(len(rois), dtype=torch.int64, device=images.device)
    rpn = [torch.cat([level.flatten() for level in maps]).square().mean() for maps in (objectness, deltas)]
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


class CudaKernels(TorchFunctionMode):
    """Runs attention as the CUDA kernel does, which never holds the scores; elsewhere PyTorch decomposes it into matmuls."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return _FusedAttention.apply(*args[:3], (kwargs or {})["attn_mask"])
        return func(*args, **(kwargs or {}))


class _FusedAttention(torch.autograd.Function):
    """Tensors that memory-efficient attention keeps and makes: output, one log-sum-exp a query, the gradient of the bias
    for every batch entry with rows padded to 16 (PyTorch's `pad_bias`)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        out = torch.empty_like(query)
        log_sum_exp = query.new_empty((*query.shape[:2], -(-query.shape[2] // 32) * 32), dtype=torch.float32)
        padded = bias.new_empty((*bias.shape[:3], -(-bias.shape[3] // 16) * 16))
        ctx.save_for_backward(query, key, value, padded, out, log_sum_exp)
        ctx.bias_shape = bias.shape
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        query, key, value, padded, _, _ = ctx.saved_tensors
        grad_bias = padded.new_empty((*query.shape[:3], padded.shape[3]))[..., : query.shape[2]]
        grads = tuple(torch.empty_like(tensor) for tensor in (query, key, value))
        return (*grads, grad_bias.sum_to_size(ctx.bias_shape))
