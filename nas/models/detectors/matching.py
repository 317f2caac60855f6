"""Matching of objects with anchors or regions, a part of these at a time: the overlaps of all with
all take 36 bytes a pair, for hundreds of objects more than the rest of a training step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import box_iou

PAIRS = 2**20  # of an object and a candidate, whose overlaps are in memory at once: 36 MiB


def match_boxes(objects: Tensor, candidates: Tensor, matcher: Matcher) -> Tensor:
    """Match candidates with the objects that they overlap most, as torchvision's `Matcher` does on
    the overlaps of all with all: equal to the last bit.

    Args:
        objects: [M, 4], corners in pixels, one at least.
        candidates: [N, 4], one at least.
        matcher: has the two limits of the overlap, and whether an object also gets the candidates
            that overlap it most, however little.

    Returns:
        [N], the index of an object; -1 below the lower limit, -2 between the limits.
    """
    parts = candidates.split(max(1, PAIRS // len(objects)))
    whole = [box_iou(objects, candidates)] if len(parts) == 1 else []

    def overlaps() -> Iterable[Tensor]:
        return whole or (box_iou(objects, part) for part in parts)

    best = [(*each.max(dim=0), each.amax(dim=1)) for each in overlaps()]
    largest, nearest = (torch.cat(each) for each in [*zip(*best, strict=True)][:2])
    found = torch.where(largest < matcher.high_threshold, Matcher.BETWEEN_THRESHOLDS, nearest)
    found = torch.where(largest < matcher.low_threshold, Matcher.BELOW_LOW_THRESHOLD, found)
    if not matcher.allow_low_quality_matches:
        return found
    of_objects = torch.stack([each for *_, each in best]).amax(dim=0)[:, None]
    closest = torch.cat([(each == of_objects).any(dim=0) for each in overlaps()])
    return torch.where(closest, nearest, found)


class PartwiseMatcher(Matcher):
    """torchvision's matcher, given objects and candidates themselves in place of their overlaps."""

    @classmethod
    def like(cls, matcher: Matcher) -> PartwiseMatcher:
        """Make one with the limits of another matcher."""
        low_quality = matcher.allow_low_quality_matches
        return cls(matcher.high_threshold, matcher.low_threshold, low_quality)

    def __call__(self, boxes: tuple[Tensor, Tensor]) -> Tensor:
        """Match `boxes`: objects [M, 4] and candidates [N, 4]; see `match_boxes`."""
        return match_boxes(*boxes, self)


def both(objects: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    """Stand in for the overlaps of boxes where a `PartwiseMatcher` is given them."""
    return objects, candidates


class PartwiseRegions(RoIHeads):
    """torchvision's heads of regions, with regions matched a part at a time."""

    def assign_targets_to_proposals(
        self, proposals: Sequence[Tensor], gt_boxes: Sequence[Tensor], gt_labels: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Find the object and the label of each region.

        Args:
            proposals: of each image [N, 4].
            gt_boxes: of each image [M, 4].
            gt_labels: of each image [M], from 1.

        Returns:
            Of each image the index of an object [N], 0 where there is none; and the label [N], 0
            for the background, -1 between the limits of the overlap.
        """
        of_images = zip(proposals, gt_boxes, gt_labels, strict=True)
        indices, labels = zip(*(self._assigned(*each) for each in of_images), strict=True)
        return [*indices], [*labels]

    def _assigned(self, regions: Tensor, objects: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
        if not len(objects):
            nothing = torch.zeros(len(regions), dtype=torch.int64, device=regions.device)
            return nothing, nothing
        found = match_boxes(objects, regions, self.proposal_matcher)
        index = found.clamp(min=0)
        label = torch.where(found == Matcher.BELOW_LOW_THRESHOLD, 0, kinds[index].to(torch.int64))
        return index, torch.where(found == Matcher.BETWEEN_THRESHOLDS, -1, label)
