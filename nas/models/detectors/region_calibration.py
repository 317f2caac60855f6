"""Output calibration of two-stage detectors: of the region proposal network from anchors and boxes
alone, of box heads from the regions that they are given at the start.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.rpn import RegionProposalNetwork

from nas.data.dataset import Batch
from nas.models.detectors.output_calibration import (
    ENOUGH,
    TrainingSample,
    logit,
    softmax_bias,
)

# Maps of the pyramid, proposals [N, 4] of each image, and its height and width.
Reached = tuple[dict[str, Tensor], list[Tensor], list[tuple[int, int]]]


def calibrate_proposals(rpn: RegionProposalNetwork, sample: TrainingSample) -> dict[str, Any]:
    """Set the biases of a region proposal network, in place: objectness of each kind of anchor to
    its share of objects among what is sampled, offsets to their mean over its positives.

    Args:
        rpn: with `PyramidAnchors`, whose ratios are the kinds.
        sample: training images.

    Returns:
        What was set; empty where no anchor is positive.
    """
    kinds = rpn.head.cls_logits.out_channels
    positives, negatives, codes = torch.zeros(kinds), torch.zeros(kinds), torch.zeros(kinds, 4)
    found = 0
    for target, size in zip(sample.targets, sample.sizes, strict=True):
        anchors = rpn.anchor_generator.of_image(size, target["boxes"].device)
        (labels,), (boxes,) = rpn.assign_targets_to_anchors([anchors], [target])
        kind = torch.arange(len(anchors), device=anchors.device) % kinds
        hit, miss = labels == 1, labels == 0
        sampler = rpn.fg_bg_sampler
        taken = min(int(hit.sum()), int(sampler.batch_size_per_image * sampler.positive_fraction))
        rest = min(int(miss.sum()), sampler.batch_size_per_image - taken)
        positives += _shares(kind[hit], kinds) * taken
        negatives += _shares(kind[miss], kinds) * rest
        encoded = rpn.box_coder.encode_single(boxes[hit], anchors[hit])
        codes.index_add_(0, kind[hit].cpu(), encoded.cpu() * (taken / max(1, int(hit.sum()))))
        found += taken
    if not found:
        return {}
    shares = positives / (positives + negatives).clamp(min=1)
    means = _means(codes, positives)
    rpn.head.cls_logits.bias.copy_(logit(shares))
    rpn.head.bbox_pred.bias.copy_(means.flatten())
    return {
        "anchor_positives": positives.tolist(),
        "anchor_shares": shares.tolist(),
        "anchor_offsets": means.tolist(),
    }


def calibrate_box_predictor(predictor: Any, labels: Tensor, offsets: Tensor) -> dict[str, Any]:
    """Set the biases of a box head's last layers, in place: class logits to the logarithm of the
    shares of the sampled regions, offsets to their mean over the regions of each class.

    Args:
        predictor: with `cls_score` [1 + K] and `bbox_pred` [4 K].
        labels: of the regions [R], 0 is the background.
        offsets: what is to be predicted for each [R, 4]; those of the background do not count.

    Returns:
        What was set; empty where no region is of an object.
    """
    kinds = len(predictor.cls_score.bias)
    counts = torch.bincount(labels.cpu(), minlength=kinds).float()
    if not counts[1:].sum():
        return {}
    codes = torch.zeros(kinds, 4).index_add_(0, labels.cpu(), offsets.float().cpu())
    means = _means(codes[1:], counts[1:])
    predictor.cls_score.bias.copy_(softmax_bias(counts))
    predictor.bbox_pred.bias.copy_(means.flatten())
    return {"region_counts": counts.tolist(), "region_offsets": means.tolist()}


def region_maps(detector: Any, batch: Batch) -> Reached:
    """Run a two-stage detector up to its proposals, as in training.

    Returns:
        Maps of the pyramid, proposals [N, 4] of each image, and its height and width.
    """
    images, maps = detector.maps(batch.images)
    proposals, _ = detector.rpn(images, maps, batch.targets)
    return maps, proposals, images.image_sizes


def _shares(kind: Tensor, kinds: int) -> Tensor:
    counts = torch.bincount(kind.cpu(), minlength=kinds).float()
    return counts / counts.sum().clamp(min=1)


def _means(sums: Tensor, counts: Tensor) -> Tensor:
    """Mean of each kind [K, 4]; of all kinds together where one has too few."""
    overall = sums.sum(dim=0) / counts.sum().clamp(min=1)
    own = sums / counts.clamp(min=1)[:, None]
    return torch.where(counts[:, None] >= ENOUGH, own, overall)
