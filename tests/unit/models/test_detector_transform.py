"""Normalisation of images: measured, kept with the weights, ImageNet's where nothing is said."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from nas.models.detectors.transform import IMAGENET, BatchTransform, ImageStatistics
from nas.models.weight_files import read_metadata

OWN = ImageStatistics((0.1, 0.5, 0.9), (0.2, 0.3, 0.4))


def test_statistics_are_those_of_all_pixels_together():
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(3, height, 5, generator=generator) ** 2 for height in (3, 9)]
    found = ImageStatistics.of_images(images)
    pixels = np.concatenate([image.numpy().reshape(3, -1) for image in images], axis=1)
    assert found.mean == pytest.approx(pixels.mean(axis=1), abs=2e-6)
    assert found.std == pytest.approx(pixels.std(axis=1, ddof=1), abs=2e-6)


def test_images_of_one_colour_are_not_divided_by_nothing():
    assert ImageStatistics.of_images([torch.full((3, 4, 4), 0.5)]) == ((0.5,) * 3, (0.02,) * 3)


def test_normalised_images_have_mean_0_and_deviation_1():
    images = [torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1)) * 0.3 + 0.6]
    transform = BatchTransform()
    transform.set_statistics(ImageStatistics.of_images(images))
    batch, _ = transform(images)
    assert batch.tensors.mean(dim=(0, 2, 3)).tolist() == pytest.approx([0] * 3, abs=1e-4)
    assert batch.tensors.std(dim=(0, 2, 3)).tolist() == pytest.approx([1] * 3, abs=1e-4)


def test_statistics_travel_with_the_weights():
    first, second = BatchTransform(), BatchTransform()
    first.set_statistics(OWN)
    second.load_state_dict(first.state_dict())
    assert second.statistics == OWN
    state = {f"transform.{name}": value for name, value in first.state_dict().items()}
    assert ImageStatistics.of_weights(state) == OWN


def test_weights_of_release_0_1_have_imagenets():
    transform = BatchTransform()
    transform.set_statistics(OWN)
    transform.load_state_dict({})
    assert transform.statistics == IMAGENET
    assert ImageStatistics.of_weights({}) is None


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ("[0, 0, 0]", "[0, 1, 1]"),
        ("[0, 0, 0]", "[-1, 1, 1]"),
        ("[0.5]", "[0.5]"),
        ("[0, 0, 0]", "[1, 1, 1e999]"),
        ("[NaN, 0, 0]", "[1, 1, 1]"),
        ('"x"', "[1, 1, 1]"),
        ("null", "5"),
        ("[]", "[]"),
        ("[" * 100_000, "[1, 1, 1]"),
        (f"[{'9' * 5000}]", "[1, 1, 1]"),
        ("{", ""),
    ],
)
def test_statistics_by_which_no_image_can_be_normalised(mean: str, std: str):
    with pytest.raises(ValueError, match="images need 3 finite|no statistics of images"):
        ImageStatistics.of_metadata({"image_mean": mean, "image_std": std})


def test_statistics_of_weights_are_those_of_three_channels():
    for values in (
        torch.zeros(3, 1, 1),
        torch.ones(2),
        torch.full((3,), torch.nan),
        torch.empty(0),
    ):
        with pytest.raises(ValueError, match="images need 3 finite means"):
            ImageStatistics.of_weights({"transform.mean": values, "transform.std": values})


def test_metadata_are_read_as_safetensors_reads_them(tmp_path):
    file = tmp_path / "x.safetensors"
    save_file({"x": torch.zeros(2)}, file, OWN.metadata())
    with safe_open(file, "pt") as opened:
        assert read_metadata(file) == opened.metadata()
    assert ImageStatistics.of_metadata(read_metadata(file)) == OWN
    save_file({"x": torch.zeros(2)}, file)
    assert ImageStatistics.of_metadata(read_metadata(file)) is None
    assert read_metadata(tmp_path / "x.pt") == {}
