"""The heads of a detector and their loss, as a segment that can be traced."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nas.config.sections import DetectorSpec
from nas.models.detectors import Detector, build_detector
from nas.profiling.segments import SMALLEST, Segment


def head_segment(
    detector: DetectorSpec, num_classes: int, batch_shape: tuple[int, ...], boxes_per_image: int
) -> Segment:
    """The heads of a detector with their loss, from the pyramid to a scalar, and what belongs to
    neither heads nor pyramid.

    Args:
        detector: which one.
        num_classes: categories, without the background.
        batch_shape: [B, 3, H, W] of the images.
        boxes_per_image: targets of one image.
    """
    key = (
        "head",
        *sorted(detector.model_dump().items()),
        num_classes,
        batch_shape,
        boxes_per_image,
    )
    return Segment("head", key, lambda: _Head(detector, num_classes, batch_shape, boxes_per_image))


class _Head(nn.Module):
    def __init__(
        self,
        detector: DetectorSpec,
        num_classes: int,
        batch_shape: tuple[int, ...],
        boxes_per_image: int,
    ) -> None:
        super().__init__()
        whole = build_detector(SMALLEST, detector, num_classes)
        # The transform has the statistics that images are normalised by.
        self.heads = nn.ModuleList([*whole.heads(), whole.transform])
        images = torch.empty(batch_shape, device="meta")
        self.loss: Callable[[list[Tensor]], Tensor] = lambda levels: bounded_loss(
            whole, levels, images, boxes_per_image
        )

    def forward(self, *levels: Tensor) -> Tensor:
        return self.consume([*levels])

    def consume(self, levels: list[Tensor]) -> Tensor:
        """Take the levels of a list, which is emptied where they are not needed to the end."""
        return self.loss(levels)


def bounded_loss(
    detector: Detector, levels: list[Tensor], images: Tensor, boxes_per_image: int
) -> Tensor:
    """Compute the training loss with every size that data decides at its limit: the value means
    nothing, the tensors behind it count.

    Runs, and is differentiated, under `torch_internals.every_mask_full`.

    Args:
        detector: on the meta device, in training mode.
        levels: maps of its pyramid; the list may be emptied.
        images: the batch [B, 3, H, W].
        boxes_per_image: targets of one image.
    """
    return torch.stack(detector.worst_case_losses(levels, images, boxes_per_image)).sum()
