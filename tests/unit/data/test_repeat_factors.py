"""Repeat factors by hand, and how often images are then drawn."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
import torch

from nas.config.recipe import Recipe
from nas.data.batch_shapes import aspect_groups
from nas.data.box_table import Box
from nas.data.coco import CocoSplit, ImageRecord
from nas.data.repeat_factors import draw_counts, repeat_factors
from nas.data.samplers import AspectRatioBatchSampler, training_order


def split(classes: list[list[int]], portrait: int = 0) -> CocoSplit:
    """Images with one box of each class that is listed; the first `portrait` are upright."""
    images = tuple(
        ImageRecord(10 + i, f"{i}.png", *((20, 30) if i < portrait else (30, 20)))
        for i in range(len(classes))
    )
    boxes = [
        Box(0, image.id, category, (1, 1, 5, 5), 25, 0)
        for image, own in zip(images, classes, strict=True)
        for category in own
    ]
    return CocoSplit(Path(), images, tuple(boxes), ((1, "a"), (2, "b"), (3, "c")))


def order(of: CocoSplit, threshold: float, size: int = 4) -> AspectRatioBatchSampler:
    recipe = Recipe(epochs=1, image_size=64, batch=size, lr=0.1, repeat_threshold=threshold)
    return training_order(of, recipe, size, seed=3)


# Class 1 is in all images but the last, class 2 in four of sixteen, class 3 in one.
RARE = split([[1, 1, 2, 3], [1, 2], [1, 2, 2], [2, 1], *[[1]] * 11, []], portrait=2)


@pytest.mark.parametrize(
    ("threshold", "of_2", "of_3"),
    [(0.01, 1, 1), (0.0625, 1, 1), (0.25, 1, 2), (0.5, math.sqrt(2), math.sqrt(8)), (1.0, 2, 4)],
)
def test_factors_by_hand(threshold: float, of_2: float, of_3: float):
    """The largest of an image's classes; at t = 1 class 1 has sqrt(16 / 15)."""
    others = math.sqrt(16 / 15) if threshold == 1 else 1
    expected = [of_3, of_2, of_2, of_2, *[others] * 11, 1]
    assert repeat_factors(RARE, threshold) == pytest.approx(expected)


def test_crowds_do_not_count():
    crowd = Box(0, 25, 3, (1, 1, 5, 5), 25, 1)
    both = CocoSplit(Path(), RARE.images, (*RARE.boxes, crowd), RARE.categories)
    assert repeat_factors(both, 0.5) == repeat_factors(RARE, 0.5)


def test_counts_are_shares_rounded_up_or_down_and_right_on_average():
    factors, generator = [1.0, 1.0, 2.0, 0.5, 4.0], torch.Generator().manual_seed(0)
    drawn = torch.tensor([draw_counts(factors, 10, generator) for _ in range(3000)])
    shares = 10 * torch.tensor(factors) / 8.5
    assert (drawn.sum(dim=1) == 10).all()
    assert ((drawn - shares).abs() < 1).all()
    assert torch.allclose(drawn.double().mean(dim=0), shares.double(), atol=0.03)


def test_alike_factors_take_each_once():
    generator = torch.Generator().manual_seed(0)
    assert draw_counts([1.7] * 1001, 1001, generator) == [1] * 1001


def test_images_are_drawn_in_proportion_and_an_epoch_keeps_its_length():
    batches = order(RARE, 0.5)
    factors = torch.tensor(repeat_factors(RARE, 0.5))
    seen: Counter[int] = Counter()
    for batches.epoch in range(600):
        drawn = list(batches)
        assert len(drawn) == len(batches) == len(order(RARE, 0.0)) == 5
        for batch in drawn:
            assert len(batch) == 4
            assert len({index < 2 for index, _ in batch}) == 1  # of one aspect
        seen.update(index for batch in drawn for index, _ in batch)
    found = torch.tensor([seen[index] / 600 for index in range(16)])
    assert torch.allclose(found, 20 * factors / factors.sum(), atol=0.12)


def test_the_seed_and_the_epoch_decide_and_skipped_batches_change_nothing():
    first, second = order(RARE, 0.5), order(RARE, 0.5)
    assert list(first) == list(first) == list(second)
    second.skipped = 2
    assert list(second) == list(first)[2:]
    second.skipped, second.epoch = 0, 1
    assert list(second) != list(first)


def test_without_a_threshold_every_image_comes():
    batches = list(order(RARE, 0.0))
    assert {index for batch in batches for index, _ in batch} == set(range(16))
    plain = AspectRatioBatchSampler(RARE.images, 4, 3)
    assert batches == list(plain)
    assert [len(group) for group in aspect_groups(RARE.images)] == [14, 2]
