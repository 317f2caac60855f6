"""Batches of labelled images: that (index, seed) decides all, what augmentation may do, and how
images are mixed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from nas.config.pretraining import PretrainingRecipe
from nas.data.classification_loader import (
    ImageBatch,
    ImageDataset,
    SequentialBatchSampler,
    eval_loader,
    train_loader,
    train_order,
)
from nas.data.classification_transforms import eval_transform, train_transform
from nas.data.image_folder import LabelledImages
from nas.data.samplers import DistributedBatchSampler
from nas.errors import DataError
from nas.utils.distributed import World

CPU = torch.device("cpu")


def recipe(**keys: object) -> PretrainingRecipe:
    return PretrainingRecipe.model_validate(
        {"epochs": 1, "image_size": 32, "batch": 4, "lr": 0.1, **keys}
    )


@pytest.fixture
def images(tmp_path: Path) -> LabelledImages:
    """Six images of noise, of different sizes."""
    sizes = [(50, 40), (40, 50), (64, 64), (90, 33), (36, 70), (48, 48)]
    for index, (width, height) in enumerate(sizes):
        pixels = np.random.default_rng(index).integers(0, 255, (height, width, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    return LabelledImages(tmp_path, tuple(f"{index}.png" for index in range(6)), (0, 0, 1, 1, 2, 2))


@pytest.mark.parametrize("augment", ["light", "strong"])
def test_the_seed_decides_and_nothing_else_changes(images: LabelledImages, augment: str):
    dataset = ImageDataset(images, train_transform(recipe(augment=augment)))
    torch.manual_seed(5)
    expected_next = torch.rand(1)
    torch.manual_seed(5)
    seen = []
    for seed in range(8):
        image, label, same = dataset[(3, seed)]
        assert torch.equal(image, dataset[(3, seed)][0])
        assert (image.shape, image.dtype, label, same) == ((3, 32, 32), torch.uint8, 1, seed)
        seen.append(image)
    assert torch.equal(torch.rand(1), expected_next)  # the caller's random state is untouched
    assert not any(torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])


def test_what_is_erased_is_grey_to_the_network(images: LabelledImages):
    from nas.data.classification_transforms import GREY
    from nas.models.detectors.transform import IMAGENET

    assert tuple(round(255 * mean) for mean in IMAGENET.mean) == GREY


def test_scored_is_the_centre(tmp_path: Path):
    """256/224 of 56 is 64: of an image of that size nothing is resized, 4 pixels on each side are
    left out.
    """
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    dataset = ImageDataset(
        LabelledImages(tmp_path, ("x.png",), (7,)), eval_transform(recipe(image_size=56))
    )
    image, label, _ = dataset[(0, 0)]
    assert label == 7
    assert torch.equal(image, torch.from_numpy(pixels[4:60, 4:60]).permute(2, 0, 1))


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (33, 40)])
def test_images_of_any_size_become_squares(tmp_path: Path, size: tuple[int, int]):
    Image.new("L", size, 9).save(tmp_path / "x.png")
    split = LabelledImages(tmp_path, ("x.png",), (0,))
    for transform in (
        train_transform(recipe()),
        train_transform(recipe(augment="strong")),
        eval_transform(recipe()),
    ):
        assert ImageDataset(split, transform)[(0, 1)][0].shape == (3, 32, 32)


def blocks(count: int = 6) -> ImageBatch:
    """Image k is of one colour, 40 k, and of class k."""
    colours = torch.arange(count, dtype=torch.uint8) * 40
    return ImageBatch(
        colours.view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous(), torch.arange(count), count
    )


def test_without_mixing_classes_and_pixels_stay():
    batch = blocks().to(CPU)
    assert torch.equal(batch.targets, torch.arange(6))
    assert torch.allclose(batch.images, blocks().images / 255)


def mixed_with_next(targets: Tensor, share: float) -> bool:
    """Whether each row is `share` of its own class and the rest of its neighbour's."""
    own = torch.eye(len(targets))
    return torch.allclose(targets, share * own + (1 - share) * own.roll(1, 0), atol=1e-6)


def test_mixed_targets_are_the_shares_of_the_pixels():
    """By mixup every pixel is a blend, by cutmix each is one or the other: the mean colour tells
    the share in both.
    """
    kinds = set()
    for seed in range(12):
        batch = ImageBatch(blocks().images, blocks().targets, 6, mixed=seed).to(CPU)
        assert torch.equal(
            batch.targets,
            ImageBatch(blocks().images, blocks().targets, 6, mixed=seed).to(CPU).targets,
        )
        share = batch.targets[1, 1].item()
        assert mixed_with_next(batch.targets, share)
        colours = blocks().images[:, 0, 0, 0] / 255
        expected = share * colours + (1 - share) * colours.roll(1)
        assert torch.allclose(batch.images.mean(dim=(1, 2, 3)), expected, atol=1e-5)
        uniform = all(len(image.unique()) == 1 for image in batch.images)
        kinds.add("mixup" if uniform and 0 < share < 1 else "cutmix")
    assert kinds == {"mixup", "cutmix"}


@pytest.mark.parametrize(("augment", "ndim"), [("light", 1), ("strong", 2)])
def test_only_strong_training_batches_are_mixed(images: LabelledImages, augment: str, ndim: int):
    made = recipe(augment=augment)
    order = train_order(images, made, World(), seed=0)
    for batch in train_loader(images, 3, made, DistributedBatchSampler(order, World()), workers=0):
        assert batch.images.shape == (4, 3, 32, 32)
        assert batch.to(CPU).targets.ndim == ndim
    scored = [batch.to(CPU) for batch in eval_loader(images, 3, made, World(), workers=0)]
    assert torch.cat([batch.targets for batch in scored]).tolist() == [0, 0, 1, 1, 2, 2]


def test_workers_change_nothing(images: LabelledImages):
    made = recipe(augment="strong")

    def epoch(workers: int) -> list[ImageBatch]:
        order = train_order(images, made, World(), seed=3)
        return [
            batch.to(CPU)
            for batch in train_loader(
                images, 3, made, DistributedBatchSampler(order, World()), workers
            )
        ]

    for mine, yours in zip(epoch(0), epoch(1), strict=True):
        assert torch.equal(mine.images, yours.images)
        assert torch.equal(mine.targets, yours.targets)


def test_every_image_comes_once_among_all_processes():
    assert list(SequentialBatchSampler(5, 2, World())) == [
        [(0, 0), (1, 0)],
        [(2, 0), (3, 0)],
        [(4, 0)],
    ]
    shares = [list(SequentialBatchSampler(5, 2, World(rank, 2))) for rank in (0, 1)]
    assert shares == [[[(0, 0), (2, 0)], [(4, 0)]], [[(1, 0), (3, 0)]]]


def test_an_image_that_breaks_later_is_named(images: LabelledImages):
    (images.folder / "4.png").write_bytes(b"gone bad")
    with pytest.raises(
        DataError,
        match=r"4.png' was sound when the data set was checked, and is not now: is not an image",
    ):
        ImageDataset(images, eval_transform(recipe()))[(4, 0)]
