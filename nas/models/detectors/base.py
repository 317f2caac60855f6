"""What every detector is and does, beside torchvision's contract: see `Detector`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from nas.config.sections import DetectorSpec
from nas.models.detectors.transform import BatchTransform
from nas.models.necks.pyramid import NeckDims, PyramidBackbone


class Detector(nn.Module, ABC):
    """A detector around a backbone, with torchvision's contract.

    In training `detector(images, targets)` gives a dict of losses, in evaluation `detector(images)`
    gives one dict of `boxes` [N, 4] (x1, y1, x2, y2 in pixels of the given image), `scores` and
    `labels` for each image. Images are float tensors [3, H, W] in 0 to 1, each of its own size,
    already resized; targets have `boxes` [N, 4] and `labels` [N] that count from 1.

    A detector with `masks` also takes `masks` [N, H, W] of 0 and 1, uint8, in targets, and its
    detections have `masks` [N, M, M]: probabilities over a grid of cells in each box, which
    `nas.data.masks.encoded` puts into the image (torchvision's have the whole image for each, a
    gigabyte where there are many). `can_mask` says of a kind of detector that it may have them.

    `neck` says which pyramid it stands on. The methods below are for those who build it, calibrate
    it and count what it costs.
    """

    neck: ClassVar[NeckDims]
    can_mask: ClassVar[bool] = False
    masks: bool = False
    backbone: PyramidBackbone
    transform: BatchTransform
    __call__: Callable[..., Any]

    @classmethod
    @abstractmethod
    def from_spec(cls, backbone: PyramidBackbone, num_classes: int, spec: DetectorSpec) -> Self:
        """The detector that a request describes, on its pyramid; `num_classes` without the
        background.
        """

    @abstractmethod
    def heads(self) -> list[nn.Module]:
        """What follows the pyramid."""

    @abstractmethod
    def predictors(self) -> list[nn.Conv2d | nn.Linear]:
        """The layers that give the outputs: they have an initialisation of their own, and
        calibration leaves them alone.
        """

    @abstractmethod
    def init_predictors(self) -> None:
        """Initialise `predictors`; everything else is He-initialised before."""

    @abstractmethod
    def worst_case_losses(
        self, levels: Sequence[Tensor], images: Tensor, boxes_per_image: int
    ) -> list[Tensor]:
        """The training losses on the pyramid of a batch [B, 3, H, W], on meta tensors, with every
        size that data decides set to its configured limit: values mean nothing, the tensors count
        (see `nas.profiling.memory.loss_bounds`).
        """

    @abstractmethod
    def heads_forward(self, levels: Sequence[Tensor]) -> None:
        """The work of the heads in evaluation, on meta tensors, with as many proposals as published
        counts have.
        """
