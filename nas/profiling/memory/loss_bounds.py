"""The training loss of a detector with every size that data decides set to its configured limit, so
that it runs on meta tensors. What is bounded, and what is left out, each detector says at its
`worst_case_losses`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.fx.experimental._config as fx_config
from torch import Tensor

from nas.models.detectors import Detector


def bounded_loss(
    detector: Detector, levels: Sequence[Tensor], images: Tensor, boxes_per_image: int
) -> Tensor:
    """The training loss on the pyramid of a batch [B, 3, H, W] with `boxes_per_image` targets each:
    its value means nothing, its tensors count.

    Runs, and is differentiated, under `every_mask_full`.
    """
    return torch.stack(detector.worst_case_losses(levels, images, boxes_per_image)).sum()


@contextmanager
def every_mask_full() -> Iterator[None]:
    """`nonzero` of a meta mask has every element."""
    before = fx_config.meta_nonzero_assume_all_nonzero
    fx_config.meta_nonzero_assume_all_nonzero = True
    try:
        yield
    finally:
        fx_config.meta_nonzero_assume_all_nonzero = before
