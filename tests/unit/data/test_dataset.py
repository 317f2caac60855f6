"""Batches: who is in them, how large they get, and that nothing but (seed, epoch) decides."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from nas.config.recipe import Recipe
from nas.data.batch_shapes import largest_batch_shape, resized_size
from nas.data.box_table import Box
from nas.data.coco import CocoSplit, ImageRecord
from nas.data.dataloader import make_loader
from nas.data.dataset import Batch, DetectionDataset
from nas.data.samplers import AspectRatioBatchSampler, EvalBatchSampler
from nas.data.transforms import TransformSampler, eval_transforms, train_transforms
from nas.data.validation import check_split


def recipe(**keys: object) -> Recipe:
    return Recipe.model_validate({"epochs": 1, "image_size": 64, "batch": 4, "lr": 0.1, **keys})


def records(sizes: list[tuple[int, int]]) -> list[ImageRecord]:
    return [ImageRecord(i, f"{i}.png", width, height) for i, (width, height) in enumerate(sizes)]


@pytest.fixture
def mixed(tmp_path: Path) -> CocoSplit:
    """Landscape, portrait and square images; the second has no box, the third a crowd."""
    sizes = [(120, 80), (80, 120), (90, 90), (130, 70), (70, 130)]
    images, boxes = records(sizes), []
    for image in images:
        pixels = (
            np.random.default_rng(image.id)
            .integers(0, 255, (image.height, image.width, 3))
            .astype(np.uint8)
        )
        Image.fromarray(pixels).save(tmp_path / image.file_name)
        if image.id != 1:
            boxes.append(Box(image.id + 1, image.id, 5, (10, 20, 30, 40), 1200, int(image.id == 2)))
    return CocoSplit(tmp_path, tuple(images), tuple(boxes), ((2, "a"), (5, "b")))


def mmcv_size(height: int, width: int, short_side: int, long_side: int) -> tuple[int, int]:
    """Height and width as mmcv's `rescale_size` rounds them, which gives no less than a pixel here;
    torchvision cuts the fraction off.
    """
    scale = min(long_side / max(height, width), short_side / min(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def shown(
    dataset: DetectionDataset, index: int, seed: int
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    pixels, target, draw = dataset[(index, seed)]
    return Batch([pixels], [target], (draw,)).to(torch.device("cpu")).images[0], target


def test_items_follow_torchvisions_contract(mixed: CocoSplit):
    dataset = DetectionDataset(mixed, eval_transforms(recipe(image_size=40)))
    image, target = shown(dataset, 0, 0)
    assert (image.shape, image.dtype) == ((3, 40, 60), torch.float32)
    assert 0 <= image.min() <= image.max() <= 1
    assert target["boxes"].tolist() == [[5, 10, 20, 30]]
    assert target["labels"].tolist() == [2]
    assert target["image_id"].item() == 0
    empty = dataset[(1, 0)][1]
    assert (empty["boxes"].shape, empty["labels"].shape) == ((0, 4), (0,))
    assert len(dataset[(2, 0)][1]["boxes"]) == 0  # a crowd is left out


@pytest.mark.parametrize("flip", [0, 1])
@pytest.mark.parametrize("index", [0, 3, 4])
def test_pixels_and_boxes_are_those_of_torchvisions_transforms(
    mixed: CocoSplit, index: int, flip: int
):
    record, box = mixed.images[index], mixed.boxes[(0, None, None, 2, 3)[index]]
    image = tv_tensors.Image(F.pil_to_tensor(Image.open(mixed.folder / record.file_name)))
    x, y, w, h = box.bbox
    boxes = tv_tensors.BoundingBoxes(
        [[float(v) for v in (x, y, x + w, y + h)]],
        format="XYXY",
        canvas_size=(record.height, record.width),
    )
    theirs = v2.Compose(
        [
            v2.Resize(mmcv_size(record.height, record.width, 40, 70)),
            v2.RandomHorizontalFlip(flip),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    expected, expected_boxes = theirs(image, boxes)
    pixels, target = shown(DetectionDataset(mixed, TransformSampler((40,), 70, flip)), index, 0)
    assert torch.equal(pixels, expected)
    assert torch.equal(target["boxes"], expected_boxes)


def test_boxes_that_vanish_in_the_resize_are_left_out_with_their_labels(mixed: CocoSplit):
    thin = Box(9, 0, 2, (5, 5, 3, 40), 120, 0)  # 3 of 120 pixels wide: 0.75 of 30
    dataset = DetectionDataset(
        dataclasses.replace(mixed, boxes=(thin, *mixed.boxes)), TransformSampler((20,), 30)
    )
    assert dataset[(0, 0)][1]["labels"].tolist() == [2]


def test_the_seed_decides_the_augmentation_and_nothing_else_changes(mixed: CocoSplit):
    dataset = DetectionDataset(mixed, train_transforms(recipe(train_sizes=[32, 48, 64])))
    torch.manual_seed(5)
    expected_next = torch.rand(1)
    torch.manual_seed(5)
    shapes = Counter()
    for seed in range(20):
        first, again = shown(dataset, 0, seed), shown(dataset, 0, seed)
        assert torch.equal(first[0], again[0])
        assert torch.equal(first[1]["boxes"], again[1]["boxes"])
        shapes[
            (tuple(first[0].shape[1:]), first[1]["boxes"][0, 0].item() < first[0].shape[2] / 4)
        ] += 1
    assert torch.equal(torch.rand(1), expected_next)  # the caller's random state is untouched
    assert {shape for shape, _ in shapes} == {(32, 48), (48, 72), (64, 96)}
    assert {flipped for _, flipped in shapes} == {True, False}


@pytest.mark.parametrize("cache_bytes", [0, 10**8])
def test_workers_change_nothing(mixed: CocoSplit, cache_bytes: int):
    def epoch(workers: int) -> list[torch.Tensor]:
        order = AspectRatioBatchSampler(mixed.images, 2, seed=3)
        loader = make_loader(mixed, train_transforms(recipe()), order, workers, cache_bytes)
        return [image for batch in loader for image in batch.to(torch.device("cpu")).images]

    for alone, helped in zip(epoch(0), epoch(2), strict=True):
        assert torch.equal(alone, helped)


@pytest.mark.parametrize("counts", [(10, 7), (3, 0), (0, 5), (1, 1), (8, 4)])
def test_every_image_comes_in_full_batches_of_one_aspect(counts: tuple[int, int]):
    images = records([(20, 10)] * counts[0] + [(10, 20)] * counts[1])
    batches = AspectRatioBatchSampler(images, 4, seed=0)
    seen: Counter[int] = Counter()
    drawn = list(batches)
    for batch in drawn:
        assert len(batch) == 4
        assert len({images[index].width > images[index].height for index, _ in batch}) == 1
        seen.update(index for index, _ in batch)
    assert len(drawn) == len(batches) == sum(math.ceil(count / 4) for count in counts)
    assert set(seen) == set(range(sum(counts)))
    assert len({seed for batch in drawn for _, seed in batch}) == 4 * len(drawn)


def batches_of_groups(groups: list[list[int]], size: int, seed: int) -> list[list[tuple[int, int]]]:
    """The batches of one epoch, the first, each group on its own, filled up with its own images."""
    generator = torch.Generator().manual_seed(seed * 1_000_003)
    batches = []
    for group in groups:
        order = [group[i] for i in torch.randperm(len(group), generator=generator).tolist()]
        order = (order * size)[: math.ceil(len(order) / size) * size] if group else []
        batches += [order[start : start + size] for start in range(0, len(order), size)]
    order = torch.randperm(len(batches), generator=generator).tolist()
    drawn = [torch.randint(2**62, (size,), generator=generator).tolist() for _ in batches]
    return [
        list(zip(batches[i], seeds, strict=True)) for i, seeds in zip(order, drawn, strict=True)
    ]


@pytest.mark.parametrize("counts", [(10, 7), (9, 2), (3, 0), (0, 5), (2, 1), (1, 2), (2, 2)])
def test_groups_of_half_a_batch_and_tiny_sets_stay_apart(counts: tuple[int, int]):
    images = records([(20, 10)] * counts[0] + [(10, 20)] * counts[1])
    groups = [[*range(counts[0])], [*range(counts[0], sum(counts))]]
    assert list(AspectRatioBatchSampler(images, 4, seed=7)) == batches_of_groups(groups, 4, 7)


@pytest.mark.parametrize(
    ("counts", "size"),
    [((200, 1), 16), ((1, 200), 16), ((10, 7), 16), ((7, 9), 16), ((13, 1), 4), ((33, 2), 5)],
)
def test_a_few_images_of_the_other_aspect_come_in_one_mixed_batch(
    counts: tuple[int, int], size: int
):
    images = records([(20, 10)] * counts[0] + [(10, 20)] * counts[1])
    few = {
        i
        for i, image in enumerate(images)
        if (image.width < image.height) == (counts[1] < counts[0])
    }
    sampler = AspectRatioBatchSampler(images, size, seed=3)
    for sampler.epoch in range(3):
        drawn = list(sampler)
        assert {len(batch) for batch in drawn} == {size}
        assert len(drawn) == len(sampler) == math.ceil(sum(counts) / size)
        seen = Counter(index for batch in drawn for index, _ in batch)
        assert set(seen) == set(range(sum(counts)))
        assert max(seen.values()) <= 2
        if sum(counts) > 2 * size:
            assert sum(bool(few & {index for index, _ in batch}) for batch in drawn) == 1
            assert {seen[index] for index in few} == {1}


def test_a_mixed_batch_is_as_high_and_as_wide_as_its_images():
    many, chosen = [(640, 480)] * 20, recipe(image_size=96, batch=8)
    assert largest_batch_shape(records(many), chosen) == (8, 3, 96, 128)
    lone = records([*many, (480, 640)])
    assert largest_batch_shape(lone, chosen) == (8, 3, 128, 128)
    assert largest_batch_shape(lone[18:], chosen) == (8, 3, 96, 128)  # three in all, apart
    pieces = recipe(image_size=96, batch=8, images_per_gpu=2)
    assert largest_batch_shape(lone, pieces) == (2, 3, 96, 128)  # half a batch of two
    assert largest_batch_shape(lone, pieces, processes=2) == (2, 3, 128, 128)


def test_order_depends_on_seed_and_epoch_alone():
    images = records([(20, 10)] * 20)
    first, second = (
        AspectRatioBatchSampler(images, 4, seed=1),
        AspectRatioBatchSampler(images, 4, seed=1),
    )
    assert list(first) == list(first) == list(second)
    first.epoch = 1
    assert list(first) != list(second)
    second.epoch = 1
    assert list(first) == list(second)
    assert list(first) != list(AspectRatioBatchSampler(images, 4, seed=2))


def test_evaluation_sees_every_image_once():
    images = records([(20, 10), (10, 20), (15, 15), (30, 10), (10, 30)])
    batches = list(EvalBatchSampler(images, 2))
    assert sorted(index for batch in batches for index, _ in batch) == [0, 1, 2, 3, 4]
    assert batches[0] == [(3, 0), (0, 0)]


@pytest.mark.parametrize(
    ("height", "width"),
    [(480, 640), (640, 480), (100, 100), (333, 500), (30, 1000), (427, 640), (64, 69)],
)
@pytest.mark.parametrize("short_side", [32, 160, 800])
def test_sizes_are_those_of_mmcv(height: int, width: int, short_side: int):
    long_side = recipe(image_size=short_side).long_side
    found = resized_size(height, width, short_side, long_side)
    assert found == mmcv_size(height, width, short_side, long_side)
    image = tv_tensors.Image(torch.zeros(3, height, width, dtype=torch.uint8))
    cut = v2.RandomShortestSize([short_side], long_side)(image).shape[1:]
    assert all(0 <= mine - theirs <= 1 for mine, theirs in zip(found, cut, strict=True))


def test_sizes_by_hand():
    assert resized_size(480, 640, 800, 1333) == (800, 1067)  # 1066.67
    assert resized_size(427, 640, 160, 266) == (160, 240)  # 239.81
    assert resized_size(64, 69, 32, 53) == (32, 35)  # 34.5
    assert resized_size(2, 999, 32, 53) == (1, 53)  # 0.11


def test_largest_batch_shape_bounds_every_batch(mixed: CocoSplit):
    for sizes in ([64], [48, 96]):
        chosen = recipe(train_sizes=sizes, image_size=64, batch=2)
        bound = largest_batch_shape(mixed.images, chosen)
        assert bound[0] == 2
        assert bound[2] % 32 == bound[3] % 32 == 0
        order = AspectRatioBatchSampler(mixed.images, 2, seed=0)
        loader = make_loader(mixed, train_transforms(chosen), order, workers=0)
        for order.epoch in range(6):
            for batch in loader:
                batch = batch.to(torch.device("cpu"))
                height = max(image.shape[1] for image in batch.images)
                width = max(image.shape[2] for image in batch.images)
                assert (-(-height // 32) * 32) * (-(-width // 32) * 32) <= bound[2] * bound[3]


def test_paper_batch_shape():
    coco = records([(640, 480), (480, 640), (640, 427), (500, 375)] * 2)
    paper = recipe(image_size=800, batch=16, images_per_gpu=4)
    assert largest_batch_shape(coco, paper) in [(4, 3, 800, 1216), (4, 3, 1088, 800)]
    assert largest_batch_shape(records([(1333, 800)]), paper) == (4, 3, 800, 1344)


def test_real_boxes_stay_on_their_objects(bccd: Path):
    split = check_split(bccd, "val").split
    _, target, _ = DetectionDataset(split, eval_transforms(recipe(image_size=160)))[(0, 0)]
    original = torch.tensor([box.bbox for box in split.boxes if box.image_id == split.images[0].id])
    expected = torch.cat([original[:, :2], original[:, :2] + original[:, 2:]], dim=1) / 3
    # 640 x 480 becomes 213 x 160: the width is rounded down from 213.33.
    assert torch.allclose(target["boxes"], expected, atol=0.4)
