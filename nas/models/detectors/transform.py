"""Images into one tensor: normalised, padded to the stride, not resized. The data pipeline resizes,
once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import msgspec
import torch
from torch import Tensor
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from nas.config.recipe import LARGEST_STRIDE
from nas.errors import quoted

CHANNELS = 3
LEAST_STD = 0.02  # of a channel: images of one colour have none


class ImageStatistics(NamedTuple):
    """Mean and standard deviation of the channels red, green and blue, in 0 to 1, that images are
    normalised by.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of_images(cls, images: Sequence[Tensor]) -> Self:
        """Measure images [3, H, W], pixel by pixel; deviations are at least 0.02."""
        pixels = torch.cat([image.flatten(1).double() for image in images], dim=1)
        return cls(*map(_numbers, (pixels.mean(dim=1), pixels.std(dim=1).clamp(min=LEAST_STD))))

    @classmethod
    def of_weights(cls, state: Mapping[str, Tensor]) -> Self | None:
        """Find the statistics among a detector's weights by name; None where they have none.

        Raises:
            ValueError: no image could be normalised by them.
        """
        if not {"transform.mean", "transform.std"} <= state.keys():
            return None
        return cls(*(_numbers(state[f"transform.{name}"]) for name in cls._fields))._checked()

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, str] | None) -> Self | None:
        """Find the statistics in the metadata of a safetensors file, as `metadata` writes them;
        None where it has none.

        Raises:
            ValueError: no image could be normalised by them.
        """
        if not metadata or "image_mean" not in metadata or "image_std" not in metadata:
            return None
        try:
            found = cls(*(_LIST.decode(metadata[f"image_{name}"]) for name in cls._fields))
        except msgspec.MsgspecError as error:
            raise ValueError(f"its metadata are no statistics of images: {error}") from None
        return found._checked()

    def _checked(self) -> Self:
        finite = all(map(math.isfinite, [*self.mean, *self.std]))
        if not finite or {len(self.mean), len(self.std)} != {CHANNELS} or min(self.std) <= 0:
            raise ValueError(
                f"images need {CHANNELS} finite means and deviations above 0; got "
                f"{quoted(self.mean)} and {quoted(self.std)}"
            )
        return self

    def metadata(self) -> dict[str, str]:
        """Text by name, for the metadata of a safetensors file."""
        return {"image_mean": json.dumps(self.mean), "image_std": json.dumps(self.std)}


_LIST = msgspec.json.Decoder(tuple[float, ...])


def _numbers(values: Tensor) -> tuple[float, ...]:
    return tuple(round(value, 6) for value in values.flatten().tolist())


IMAGENET = ImageStatistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # as everybody has them


class BatchTransform(GeneralizedRCNNTransform):
    """torchvision's batching of images, without its resizing: images come resized, and the switch
    that torchvision has for it works in training only.

    Attributes:
        mean, std: what images are normalised by [3, 1, 1], ImageNet's unless they are set; part of
            the weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        # The sizes are required and unused.
        super().__init__(0, 0, [], [], size_divisible=LARGEST_STRIDE)
        self.memory_format = torch.contiguous_format  # of the batch
        for name, values in IMAGENET._asdict().items():
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1))

    @property
    def statistics(self) -> ImageStatistics:
        """What images are normalised by."""
        return ImageStatistics(_numbers(self.mean), _numbers(self.std))

    @torch.no_grad()
    def set_statistics(self, statistics: ImageStatistics) -> None:
        """Normalise images by other statistics from now on."""
        for name, values in statistics._asdict().items():
            self.get_buffer(name).copy_(torch.tensor(values).view(3, 1, 1))

    def normalize(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.std

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Weights of release 0.1.0 have no statistics: theirs are ImageNet's."""
        for name, values in IMAGENET._asdict().items():
            state_dict.setdefault(f"{prefix}{name}", torch.tensor(values).view(3, 1, 1))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def batch_images(self, images: list[Tensor], size_divisible: int = LARGEST_STRIDE) -> Tensor:
        batch: Tensor = super().batch_images(images, size_divisible)
        return batch.contiguous(memory_format=self.memory_format)

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        return image, target


def empty_targets(images: Tensor, count: int) -> list[dict[str, Tensor]]:
    """Make `count` boxes and labels without content for each image of a batch, on its device."""
    labels = torch.ones(count, dtype=torch.int64, device=images.device)
    return [{"boxes": images.new_zeros(count, 4), "labels": labels} for _ in range(len(images))]
