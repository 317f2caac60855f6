"""Images into one tensor: normalised, padded to the stride, not resized. The data pipeline resizes,
once.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from nas.config.recipe import LARGEST_STRIDE

IMAGE_MEAN, IMAGE_STD = (
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)  # of ImageNet, as everybody uses them


class BatchTransform(GeneralizedRCNNTransform):
    """torchvision's batching of images, without its resizing: images come resized, and the switch
    that torchvision has for it works in training only.
    """

    def __init__(self) -> None:
        # The sizes are required and unused.
        super().__init__(0, 0, list(IMAGE_MEAN), list(IMAGE_STD), size_divisible=LARGEST_STRIDE)
        self.memory_format = torch.contiguous_format  # of the batch
        self.mean, self.std = (
            torch.tensor(values, device="cpu").view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD)
        )

    def normalize(self, image: Tensor) -> Tensor:
        if (
            self.mean.device != image.device
        ):  # once: torchvision's own copies lists there for every image, and waits for it
            self.mean, self.std = self.mean.to(image.device), self.std.to(image.device)
        return (image - self.mean) / self.std

    def batch_images(self, images: list[Tensor], size_divisible: int = LARGEST_STRIDE) -> Tensor:
        batch: Tensor = super().batch_images(images, size_divisible)
        return batch.contiguous(memory_format=self.memory_format)

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        return image, target

    def postprocess(
        self, result: list[dict[str, Tensor]], *sizes: object
    ) -> list[dict[str, Tensor]]:
        """Return detections as they are: images were not resized, and masks stay grids over their
        boxes.
        """
        return result


def empty_targets(images: Tensor, count: int) -> list[dict[str, Tensor]]:
    """Make `count` boxes and labels without content for each image of a batch, on its device."""
    labels = torch.ones(count, dtype=torch.int64, device=images.device)
    return [{"boxes": images.new_zeros(count, 4), "labels": labels} for _ in range(len(images))]
