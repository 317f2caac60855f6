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
    """A detector around a backbone: the contract of every class in `nas.models.detectors`.

    Called as torchvision's detectors are. In training `detector(images, targets)` gives a dict of
    scalar losses, whose sum is minimised; in evaluation `detector(images)` gives for each image a
    dict of `boxes` [N, 4] (x1, y1, x2, y2 in pixels of that image), `scores` [N] in 0 to 1 and
    `labels` [N] from 1. `images` are float tensors [3, H, W] in 0 to 1, each of its own size,
    already resized; `targets` have `boxes` [M, 4] and `labels` [M] from 1, and M may be 0.

    With `masks`, targets also have `masks` [M, H, W] of 0 and 1, uint8, and detections `masks` [N,
    S, S]: probabilities over a grid of S x S cells in each box, which `nas.data.masks.encoded` puts
    into the image. torchvision's masks have the size of the image, which takes a gigabyte where
    there are many.

    A new detector provides:

    - the class attribute `neck`, and `can_mask` if it has mask heads; the attributes `backbone`, a
      pyramid, and `transform`, which batches images;
    - `forward` for training and evaluation. Losses work for an image without boxes and under
      autocast to bf16, and are averaged over processes where they divide by a count
      (`nas.utils.distributed.all_reduce_mean`);
    - `from_spec`, `heads`, `predictors` and `init_predictors`, by which it is built, initialised
      and calibrated;
    - `worst_case_losses` for the memory estimate and `heads_forward` for the FLOP count. Both run
      on meta tensors, which have shapes and no values;
    - an entry in `DETECTORS` and its name in `nas.config.choices`: then
      `tests/contract/test_detectors.py` holds it to this contract.

    Attributes:
        neck: the pyramid that it stands on: its first backbone map, and its extra levels.
        can_mask: whether detectors of this class can have mask heads.
        masks: whether this one has.
        backbone: backbone and neck.
        transform: normalises images and pads them to one batch.
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
        """Build the detector that a request describes.

        Args:
            backbone: the pyramid that it stands on.
            num_classes: categories, without the background.
            spec: widths and options of the detector.
        """

    @abstractmethod
    def heads(self) -> list[nn.Module]:
        """Modules that follow the pyramid; together they own every parameter outside `backbone`."""

    @abstractmethod
    def predictors(self) -> list[nn.Conv2d | nn.Linear]:
        """Layers that give the outputs. They have an initialisation of their own, and calibration
        leaves them alone.
        """

    @abstractmethod
    def init_predictors(self) -> None:
        """Initialise `predictors`, in place. Everything else is He-initialised before."""

    @abstractmethod
    def worst_case_losses(
        self, levels: Sequence[Tensor], images: Tensor, boxes_per_image: int
    ) -> list[Tensor]:
        """Compute the training losses with every size that data decides (positives, sampled
        regions) at its configured limit: the most memory that a step can take.

        Args:
            levels: maps of the pyramid, on meta tensors.
            images: the batch [B, 3, H, W].
            boxes_per_image: targets of one image.

        Returns:
            Scalars; their values mean nothing, the tensors behind them count.
        """

    @abstractmethod
    def heads_forward(self, levels: Sequence[Tensor]) -> None:
        """Do the work of the heads in evaluation, with as many proposals as published counts have.

        Args:
            levels: maps of the pyramid, on meta tensors.
        """
