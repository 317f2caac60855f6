"""What every detector is and does, beside torchvision's contract: see `Detector`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from nas.config.sections import DetectorSpec
from nas.models.detectors.normalization import Losses, batch_divisors, divided
from nas.models.detectors.output_calibration import TrainingSample
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
    - `detections` for evaluation and `loss_sums` for training, from the maps of a batch, and
      `loss_counts`. Losses work for an image without boxes and under autocast to bf16; they are
      sums, which `forward` divides by counts of the whole batch
      (`nas.models.detectors.normalization`);
    - `from_spec`, `heads`, `predictors`, `init_heads` and `calibrate_outputs`, by which it is
      built, initialised and calibrated;
    - `worst_case_losses` for the memory estimate and `heads_forward` for the FLOP count. Both run
      on meta tensors, which have shapes and no values;
    - an entry in `DETECTORS` and its name in `nas.config.choices`: then
      `tests/contract/test_detectors.py` holds it to this contract.

    Attributes:
        neck: the pyramid that it stands on: its first backbone map, and its extra levels.
        can_mask: whether detectors of this class can have mask heads.
        least_counts: smallest total of `loss_counts` by name of a loss, where it is not 1.
        masks: whether this one has.
        backbone: backbone and neck.
        transform: normalises images and pads them to one batch.
    """

    neck: ClassVar[NeckDims]
    can_mask: ClassVar[bool] = False
    least_counts: ClassVar[Mapping[str, float]] = {}
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
    def init_heads(self) -> None:
        """Initialise `predictors`, in place, and what else of the heads is not to be
        He-initialised, which they are before.
        """

    def forward(
        self,
        images: list[Tensor],
        targets: list[dict[str, Tensor]] | None = None,
        divisors: Losses | None = None,
    ) -> Any:
        """Detect in evaluation; in training compute the losses.

        Args:
            images, targets: see `Detector`.
            divisors: of the losses, what `divisors` makes of the counts of all pieces of a batch;
                default: the counts of what is given.
        """
        if not self.training:
            return self.detections(*self.maps(images))
        if targets is None:
            raise ValueError("targets must be given in training")
        sums, counts = self.loss_sums(*self.maps(images), targets)
        return divided(sums, divisors or self.divisors([counts]))

    def maps(self, images: list[Tensor]) -> tuple[ImageList, dict[str, Tensor]]:
        """Batch images, and run the pyramid.

        Returns:
            The batch, normalised and padded, with the sizes of its images; and the levels of the
            pyramid [B, C, H_i, W_i] by name, the finest first.
        """
        batch, _ = self.transform(images, None)
        return batch, self.backbone(batch.tensors)

    @abstractmethod
    def detections(self, batch: ImageList, maps: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """Detect objects: results as in evaluation (see `Detector`), of what `maps` gives."""

    @abstractmethod
    def loss_sums(
        self, batch: ImageList, maps: dict[str, Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[Losses, Losses]:
        """Sum the losses of a piece of a batch.

        Args:
            batch, maps: what `maps` gives for its images; `maps` may be emptied once they are not
                needed any more.
            targets: of the piece, as for training.

        Returns:
            Sums by name of the loss, and what `loss_counts` gives.
        """

    @torch.no_grad()
    def validation_sums(
        self, batch: ImageList, maps: dict[str, Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[Losses, Losses]:
        """Sum the losses of images that are not learnt from, by the norms of evaluation; arguments
        and results as of `loss_sums`. Where regions are sampled, they are as in training.
        """
        heads = self.heads()  # each says by its own `training` whether there are losses
        for head in heads:
            head.training = True
        try:
            return self.loss_sums(batch, maps, targets)
        finally:
            for head in heads:
                head.training = self.training

    @abstractmethod
    def loss_counts(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> Losses:
        """Count what the sums of a piece of a batch are divided by, without a gradient.

        Args:
            images, targets: of the piece, as for training.

        Returns:
            By name of the loss, in the shape of its sums.
        """

    def divisors(self, pieces: Sequence[Losses]) -> Losses:
        """What each piece of a batch divides its losses by, from the counts of all pieces."""
        return batch_divisors(pieces, self.least_counts)

    @abstractmethod
    def calibrate_outputs(self, sample: TrainingSample) -> dict[str, Any]:
        """Set biases of `predictors`, in place, so that the first outputs are those of the average
        training image: class probabilities at the optimum of their loss for the data's
        frequencies, boxes at their means.

        Args:
            sample: training images.

        Returns:
            What was found and set, plain JSON; empty where the sample has no object, and nothing
            is set.
        """

    @abstractmethod
    def worst_case_losses(
        self, levels: list[Tensor], images: Tensor, boxes_per_image: int
    ) -> list[Tensor]:
        """Compute the training losses with every size that data decides (positives, sampled
        regions) at its configured limit: the most memory that a step can take.

        Args:
            levels: maps of the pyramid, on meta tensors; the list may be emptied once they are not
                needed any more.
            images: the batch [B, 3, H, W].
            boxes_per_image: targets of one image.

        Returns:
            Scalars; their values mean nothing, the tensors behind them count.
        """

    @abstractmethod
    def heads_forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Do the work of the heads in evaluation, with as many proposals as published counts have.

        Args:
            levels: maps of the pyramid, on meta tensors.

        Returns:
            Everything that they compute, in no particular form.
        """
