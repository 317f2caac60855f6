"""Losses of two-stage detectors that do not depend on how a batch is cut into pieces: each is the
mean over an image's sampled anchors or regions, and of these the mean over images. Where all
images have as many samples, as they do but for very small ones, that is the published mean over
all samples.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.rpn import RegionProposalNetwork

from nas.models.detectors.matching import PartwiseMatcher, PartwiseRegions, both
from nas.models.detectors.normalization import Losses

BETA = 1 / 9  # where the smooth L1 loss becomes linear


class ProposalNetwork(RegionProposalNetwork):
    """torchvision's region proposal network, whose losses are sums over images, and which matches
    a part of the anchors at a time.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        whole: Any = self.proposal_matcher  # type: ignore[has-type]
        self.box_similarity = both
        self.proposal_matcher = PartwiseMatcher.like(whole)

    def compute_loss(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Sum cross-entropy and smooth L1 loss over images, each the mean over the anchors sampled
        of an image.

        Args:
            objectness: [B N, 1].
            pred_bbox_deltas: [B N, 4].
            labels: of each image [N], 1 for an object, 0 for none, -1 for neither.
            regression_targets: of each image [N, 4].
        """
        drawn = [
            tuple(torch.where(mask)[0] for mask in pair)
            for pair in zip(*self.fg_bg_sampler(labels), strict=True)
        ]
        starts = list(itertools.accumulate((len(each) for each in labels[:-1]), initial=0))
        places = [torch.cat(pair) + start for pair, start in zip(drawn, starts, strict=True)]
        sampled, weights = torch.cat(places), region_weights(places)
        classes = F.binary_cross_entropy_with_logits(
            objectness.flatten()[sampled], torch.cat(labels)[sampled], reduction="none"
        )
        hits = [pair[0] + start for pair, start in zip(drawn, starts, strict=True)]
        positive = torch.cat(hits)
        boxes = F.smooth_l1_loss(
            pred_bbox_deltas[positive],
            torch.cat(regression_targets)[positive],
            beta=BETA,
            reduction="none",
        ).sum(dim=1)
        shares = torch.cat(
            [
                hit.new_full((len(hit),), 1 / max(1, len(place)), dtype=torch.float32)
                for hit, place in zip(hits, places, strict=True)
            ]
        )
        return (classes * weights).sum(), (boxes * shares).sum()


class BoxHeads(PartwiseRegions):
    """torchvision's box head, whose losses are sums over images, and which detects in one image
    after the other.
    """

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> Any:
        if not self.training:
            return self._detections(features, proposals, image_shapes), {}
        regions, _, labels, offsets = self.select_training_samples(proposals, targets)
        pooled = self.box_head(self.box_roi_pool(features, regions, image_shapes))
        logits, predicted = self.box_predictor(pooled)
        return [], box_losses(logits, predicted, labels, offsets)

    def _detections(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        """Of one image after the other: the regions of a whole batch, twice as many of an image as
        in training, would take more memory than a training step on small images.
        """
        found: list[dict[str, Tensor]] = []
        if len(proposals) == 1:
            found += super().forward(features, proposals, image_shapes)[0]
            return found
        for index, (regions, shape) in enumerate(zip(proposals, image_shapes, strict=True)):
            maps = {name: level[index : index + 1] for name, level in features.items()}
            found += super().forward(maps, [regions], [shape])[0]
        return found


def box_losses(
    logits: Tensor, offsets: Tensor, labels: Sequence[Tensor], wanted: Sequence[Tensor]
) -> Losses:
    """Sum cross-entropy and smooth L1 loss over images, each the mean over an image's regions.

    Args:
        logits: [R, 1 + K] of the regions of all images.
        offsets: [R, 4 (1 + K)].
        labels: of each image's regions, 0 is the background.
        wanted: of each image's regions, offsets [., 4].
    """
    weights = region_weights(labels)
    classes = torch.cat(list(labels))
    hits = torch.where(classes > 0)[0]
    boxes = F.smooth_l1_loss(
        offsets.unflatten(1, (-1, 4))[hits, classes[hits]],
        torch.cat(list(wanted))[hits],
        beta=BETA,
        reduction="none",
    )
    return {
        "loss_classifier": (F.cross_entropy(logits, classes, reduction="none") * weights).sum(),
        "loss_box_reg": (boxes.sum(dim=1) * weights[hits]).sum(),
    }


def region_weights(parts: Sequence[Tensor]) -> Tensor:
    """Weights that make a sum over regions one over images of each image's mean: [R], from one
    tensor of each image with a row for each of its regions.
    """
    return torch.cat(
        [part.new_full((len(part),), 1 / max(1, len(part)), dtype=torch.float32) for part in parts]
    )


def image_counts(images: Sequence[Tensor], names: Sequence[str]) -> Losses:
    """Count the images, which every loss named is divided by."""
    return dict.fromkeys(names, torch.full((), len(images), device=images[0].device))
