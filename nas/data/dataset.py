"""Images and boxes as training and evaluation want them, and the batches they come in.

An item is asked for by (index, seed): what augmentation draws depends on that pair alone, so that a run that was interrupted,
or one with another number of loader workers, sees the same pixels.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import tv_tensors
from torchvision.transforms import v2

from nas.data.annotations import Box, CocoSplit, ImageRecord
from nas.data.images import BrokenImage, read_rgb
from nas.errors import DataError
from nas.spec import LARGEST_STRIDE, Recipe

Target = dict[str, Tensor]
Item = tuple[int, int]  # index of the image, seed of its augmentation


@dataclass(frozen=True)
class Batch:
    """Images [3, H_i, W_i], float in 0 to 1, and their targets: `boxes` [N, 4], `labels` [N] from 1, `image_id` []."""

    images: list[Tensor]
    targets: list[Target]

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        images = [image.to(device, non_blocking=True) for image in self.images]
        return Batch(images, [{k: v.to(device, non_blocking=True) for k, v in target.items()} for target in self.targets])


def train_transforms(recipe: Recipe) -> v2.Compose:
    """Flip, resize to a short side drawn from the recipe's, float in 0 to 1."""
    flip = v2.RandomHorizontalFlip(recipe.flip)
    return v2.Compose([v2.ToImage(), flip, *_resize(recipe.short_sides, recipe.long_side), v2.SanitizeBoundingBoxes()])


def eval_transforms(recipe: Recipe) -> v2.Compose:
    """Resize to the recipe's size, float in 0 to 1."""
    return v2.Compose([v2.ToImage(), *_resize((recipe.image_size,), recipe.long_side)])


def _resize(short_sides: Sequence[int], long_side: int) -> list[v2.Transform]:
    return [v2.RandomShortestSize(list(short_sides), long_side), v2.ToDtype(torch.float32, scale=True)]


class DetectionDataset(Dataset):
    """The images of a split with their boxes; crowd boxes are left out in training, evaluation reads them from the split."""

    def __init__(self, split: CocoSplit, transforms: v2.Compose) -> None:
        self.split, self.transforms = split, transforms
        self.boxes: dict[int, list[Box]] = defaultdict(list)
        for box in split.boxes:
            if not box.iscrowd:
                self.boxes[box.image_id].append(box)

    def __len__(self) -> int:
        return len(self.split.images)

    def __getitem__(self, item: Item) -> tuple[Tensor, Target]:
        index, seed = item
        record = self.split.images[index]
        path = self.split.folder / record.file_name
        try:
            image = read_rgb(path, (record.width, record.height))
        except BrokenImage as error:
            raise DataError(f"image {str(path)!r} was sound when the data set was checked, and is not now: {error}") from None
        state = torch.get_rng_state()
        try:
            torch.default_generator.manual_seed(seed)
            pixels, target = self.transforms(image, self._target(record))
        finally:
            torch.set_rng_state(state)
        return pixels.as_subclass(Tensor), {key: value.as_subclass(Tensor) for key, value in target.items()}

    def _target(self, record: ImageRecord) -> Target:
        boxes = self.boxes[record.id]
        xyxy = [[x, y, x + w, y + h] for x, y, w, h in (box.bbox for box in boxes)]
        canvas = (record.height, record.width)
        corners = torch.tensor(xyxy, dtype=torch.float32).reshape(-1, 4)
        return {
            "boxes": tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=canvas),
            "labels": torch.tensor([self.split.labels[box.category_id] for box in boxes], dtype=torch.int64),
            "image_id": torch.tensor(record.id),
        }


class AspectBatches(Sampler):
    """Shuffled batches of portrait or of landscape images, never both: a mixed batch is padded to up to 1.68 times the area.

    Every image comes once an epoch; the last batch of each group is filled up with images that come a second time, so that
    all batches have the same size. The order depends on (seed, epoch) alone; the first `skipped` batches of it are left out.

    Args:
        images: of the split, in the order of the data set.
        size: images of one batch.
        seed: of the run.
    """

    def __init__(self, images: Sequence[ImageRecord], size: int, seed: int) -> None:
        self.size, self.seed, self.epoch, self.skipped = size, seed, 0, 0
        self.groups = [group for group in aspect_groups(images) if group]

    def __len__(self) -> int:
        return sum(math.ceil(len(group) / self.size) for group in self.groups)

    def __iter__(self) -> Iterator[list[Item]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        batches: list[list[int]] = []
        for group in self.groups:
            order = [group[i] for i in torch.randperm(len(group), generator=generator).tolist()]
            order += (order * self.size)[: -len(order) % self.size]
            batches += [order[start : start + self.size] for start in range(0, len(order), self.size)]
        for place, position in enumerate(torch.randperm(len(batches), generator=generator).tolist()):
            seeds = torch.randint(2**62, (self.size,), generator=generator).tolist()
            if place < self.skipped:
                continue
            yield list(zip(batches[position], seeds, strict=True))


class EvalBatches(Sampler):
    """Every image once, neighbours alike in shape."""

    def __init__(self, images: Sequence[ImageRecord], size: int) -> None:
        order = sorted(range(len(images)), key=lambda i: (images[i].height / images[i].width, i))
        self.batches = [[(index, 0) for index in order[start : start + size]] for start in range(0, len(order), size)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Item]]:
        return iter(self.batches)


def aspect_groups(images: Sequence[ImageRecord]) -> tuple[list[int], list[int]]:
    """Indices of the landscape (or square) images and of the portrait ones."""
    landscape = [index for index, image in enumerate(images) if image.width >= image.height]
    portrait = [index for index, image in enumerate(images) if image.width < image.height]
    return landscape, portrait


def make_loader(split: CocoSplit, transforms: v2.Compose, batches: Sampler, workers: int) -> DataLoader:
    """Batches of `split` in the order of `batches`."""
    return DataLoader(
        DetectionDataset(split, transforms), batch_sampler=batches, collate_fn=_collate, num_workers=workers,
        persistent_workers=workers > 0, pin_memory=workers > 0 and torch.cuda.is_available(),
    )  # fmt: skip


def _collate(items: list[tuple[Tensor, Target]]) -> Batch:
    images, targets = zip(*items, strict=True)
    return Batch(list(images), list(targets))


def resized(height: int, width: int, short_side: int, long_side: int) -> tuple[int, int]:
    """Height and width after the resize: the short side as asked for, unless the long side would pass its limit."""
    ratio = min(short_side / min(height, width), long_side / max(height, width))
    return max(1, int(height * ratio)), max(1, int(width * ratio))


def largest_batch_shape(images: Sequence[ImageRecord], recipe: Recipe) -> tuple[int, int, int, int]:
    """[B, 3, H, W] of the largest batch that training can meet, padded to the stride as detectors pad it.

    A bound: the tallest and the widest image of an aspect group are taken to meet in one batch.
    """
    shapes = []
    for group in aspect_groups(images):
        sides = {(images[i].height, images[i].width) for i in group}
        sizes = [resized(h, w, short, recipe.long_side) for h, w in sides for short in recipe.short_sides]
        if sizes:
            shapes.append(tuple(_padded(max(side)) for side in zip(*sizes, strict=True)))
    height, width = max(shapes, key=math.prod)
    return recipe.images_per_step, 3, height, width


def _padded(side: int) -> int:
    return math.ceil(side / LARGEST_STRIDE) * LARGEST_STRIDE
