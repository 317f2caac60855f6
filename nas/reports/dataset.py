"""What is known of a data set once it has been checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Self

OLDER_DIGITS = 16  # of a fingerprint of release 0.1.0


@dataclass(frozen=True)
class DatasetSummary:
    """A checked data set in a few figures: all that a search needs to know of it.

    Args:
        fingerprint: hexadecimal digest of images, boxes and categories of all splits.
        categories: their names, in the order of their labels, without the background.
        train_images, train_boxes: how many there are to train on.
        val_images, val_boxes: how many there are to score.
        max_boxes_per_image: the most boxes on one training image, crowds not counted.
        batch_shape: the largest batch of a training step: images, channels, height, width.
        repaired: by kind of problem, how many were repaired.
        left_out: by kind of problem, how many images or boxes are left out.
        masks: objects to train on have masks, and the detector learns them.
        warned: by kind of problem, how many images or boxes are used as they are, though they may
            mislead.
        read: for each split what it was read from: `COCO, instances_train.json`.
    """

    fingerprint: str
    categories: tuple[str, ...]
    train_images: int
    train_boxes: int
    val_images: int
    val_boxes: int
    max_boxes_per_image: int
    batch_shape: tuple[int, int, int, int]
    repaired: dict[str, int]
    left_out: dict[str, int]
    masks: bool = False
    warned: dict[str, int] = field(default_factory=dict)
    read: dict[str, str] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """Number of categories, the background not counted."""
        return len(self.categories)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, as studies and recorded benchmarks keep it."""
        return asdict(self) | {
            "categories": list(self.categories),
            "batch_shape": list(self.batch_shape),
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Inverse of `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: a field is missing, unknown or no list where it must
                be.
        """
        images, channels, height, width = fields["batch_shape"]
        return cls(
            **fields
            | {
                "categories": tuple(fields["categories"]),
                "batch_shape": (images, channels, height, width),
            }
        )


def same_data(stored: str, now: str) -> bool:
    """Tell whether two fingerprints are of the same data: equal, or the first half where a study or
    bundle of release 0.1.0 has no other.

    Args:
        stored: with a study or a bundle.
        now: as `nas.data.fingerprint.fingerprint` gives it.
    """
    return now[: len(stored)] == stored if len(stored) == OLDER_DIGITS else now == stored
