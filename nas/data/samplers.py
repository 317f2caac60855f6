"""Batch samplers: which images come together in a batch, in which order, and with which seeds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch.utils.data import Sampler

from nas.config.recipe import Recipe
from nas.data.batch_shapes import aspect_groups, joined_groups
from nas.data.coco import CocoSplit, ImageRecord
from nas.data.dataset import Item
from nas.data.repeat_factors import draw_counts, repeat_factors
from nas.utils.distributed import World


class GroupedBatchSampler(Sampler[list[Item]]):
    """A sampler of shuffled batches of (index, seed of the augmentation), each of one group.

    Every image comes once an epoch; the last batch of each group is filled up with images that come
    a second time (more often where there are fewer images than half a batch altogether), so that
    all batches have the same size. A group of fewer images than half a batch comes in a batch of
    another one. With `factors` there are as many batches, of images drawn in proportion to them;
    the groups share the batches likewise. The order depends on the seed and the attribute `epoch`
    alone; its first `skipped` batches are left out.

    Args:
        groups: indices of the images of each group, at most two groups.
        size: images of one batch.
        seed: seed of the training.
        factors: of each image, above 0; empty: every image comes once.
    """

    def __init__(
        self, groups: Iterable[Sequence[int]], size: int, seed: int, factors: Sequence[float] = ()
    ) -> None:
        self.size, self.seed, self.epoch, self.skipped = size, seed, 0, 0
        self.groups, self.factors = joined_groups(groups, size), factors

    def __len__(self) -> int:
        return sum(math.ceil(sum(map(len, parts)) / self.size) for parts in self.groups)

    def __iter__(self) -> Iterator[list[Item]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        batches: list[list[int]] = []
        for order in (self._drawn if self.factors else self._shuffled)(generator):
            batches += [
                order[start : start + self.size] for start in range(0, len(order), self.size)
            ]
        order = torch.randperm(len(batches), generator=generator).tolist()
        for number, index in enumerate(order):
            seeds = torch.randint(2**62, (self.size,), generator=generator).tolist()
            if number < self.skipped:  # the seeds of later batches must not depend on it
                continue
            yield list(zip(batches[index], seeds, strict=True))

    def _shuffled(self, generator: torch.Generator) -> Iterator[list[int]]:
        """Every image of a group, in full batches: the few first, in one batch; those that come
        twice are of the many.
        """
        for parts in self.groups:
            drawn = [_shuffle(part, generator) for part in parts]
            order = [*itertools.chain(*drawn)]
            again = [*itertools.chain(*reversed(drawn))]
            yield order + (again * self.size)[: -len(order) % self.size]

    def _drawn(self, generator: torch.Generator) -> Iterator[list[int]]:
        """The images of each group that an epoch has, those with a large factor several times."""
        groups = [[*itertools.chain(*parts)] for parts in self.groups]
        factors = [[self.factors[index] for index in group] for group in groups]
        batches = draw_counts([sum(group) for group in factors], len(self), generator)
        for group, own, number in zip(groups, factors, batches, strict=True):
            counts = draw_counts(own, number * self.size, generator)
            drawn = [i for i, count in zip(group, counts, strict=True) for _ in range(count)]
            yield _shuffle(drawn, generator)


class AspectRatioBatchSampler(GroupedBatchSampler):
    """A sampler of shuffled batches of portrait or of landscape images: a mixed batch would be
    padded to up to 1.68 times the area. There is one where one kind has fewer images than half a
    batch, which would else come again and again to fill a batch of their own.

    Args:
        images: the images of the split, in the order of the data set.
        size: images of one batch.
        seed: seed of the training.
        factors: how often each image is drawn, relative to others; empty: alike.
    """

    def __init__(
        self,
        images: Sequence[ImageRecord],
        size: int,
        seed: int,
        factors: Sequence[float] = (),
    ) -> None:
        super().__init__(aspect_groups(images), size, seed, factors)


class DistributedBatchSampler(Sampler[list[Item]]):
    """A sampler of one process's part of each batch, so that batches do not depend on the number of
    processes.

    Args:
        batches: the batches of all processes together.
        world: this process among them.
    """

    def __init__(self, batches: GroupedBatchSampler | EvalBatchSampler, world: World) -> None:
        self.batches, self.world = batches, world

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Item]]:
        for batch in self.batches:
            part = math.ceil(self.batches.size / self.world.size)
            if own := batch[part * self.world.rank : part * (self.world.rank + 1)]:
                yield own


class EvalBatchSampler(Sampler[list[Item]]):
    """A sampler that gives every image once, in batches of images that are alike in shape.

    Args:
        images: the images of the split, in the order of the data set.
        size: images of one batch; the last one may have fewer.
    """

    def __init__(self, images: Sequence[ImageRecord], size: int) -> None:
        self.size = size
        order = sorted(range(len(images)), key=lambda i: (images[i].height / images[i].width, i))
        self.batches = [
            [(index, 0) for index in order[start : start + size]]
            for start in range(0, len(order), size)
        ]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Item]]:
        return iter(self.batches)


def _shuffle(indices: Sequence[int], generator: torch.Generator) -> list[int]:
    return [indices[i] for i in torch.randperm(len(indices), generator=generator).tolist()]


def training_order(
    split: CocoSplit, recipe: Recipe, size: int, seed: int
) -> AspectRatioBatchSampler:
    """Build the sampler of a training: batches of `size` images, shuffled by `seed`, with rare
    classes as often as the recipe has them.
    """
    rare = recipe.repeat_threshold
    factors = repeat_factors(split, rare) if rare else ()
    return AspectRatioBatchSampler(split.images, size, seed, factors)
