"""Recipes of pre-training: what is published, and what follows from a flag."""

from __future__ import annotations

import math

import pytest

from nas.config.choices import recipe_names
from nas.config.pretraining import RECIPES, PretrainingRecipe, load_pretraining
from nas.errors import SpecError
from nas.training.lr_schedule import lr_at


def recipe(**keys: object) -> PretrainingRecipe:
    return load_pretraining(
        {"data": "x", **{f"recipe.{name}": value for name, value in keys.items()}}
    ).recipe


def test_shipped_recipes():
    assert recipe_names(RECIPES) == ["resnet", "swin"]
    assert "swin" not in recipe_names()
    swin, resnet = recipe(), recipe(name="resnet")
    assert (swin.name, swin.optimizer, swin.lr, swin.batch, swin.images_per_gpu) == (
        "swin",
        "adamw",
        1e-3,
        1024,
        128,
    )
    assert (resnet.optimizer, resnet.lr, resnet.batch, resnet.weight_decay) == (
        "sgd",
        0.1,
        256,
        1e-4,
    )


@pytest.mark.parametrize(("name", "epochs"), [("swin", 20), ("resnet", 5)])
def test_warm_ups_are_the_published_epochs(name: str, epochs: int):
    """Of ImageNet's 1,281,167 training images."""
    per_epoch = math.ceil(1_281_167 / recipe(name=name).batch)
    made = recipe(name=name).over(recipe(name=name).epochs * per_epoch)
    rates = [
        lr_at(step, per_epoch, made)
        for step in (0, epochs * per_epoch - per_epoch // 5, epochs * per_epoch + per_epoch // 5)
    ]
    assert rates[0] < 1e-3 * made.lr
    assert rates[1] < made.lr
    assert rates[2] == pytest.approx(made.lr, rel=2e-3)


def test_a_short_training_warms_up_for_its_share():
    assert recipe(epochs=3).over(300).warmup_steps == 20
    assert recipe(warmup_steps=7).over(300).warmup_steps == 7
    assert recipe(warmup_fraction=0).over(300).warmup_steps == 0


def test_the_rate_follows_the_batch_unless_it_is_given():
    assert recipe(batch=256).lr == pytest.approx(2.5e-4)
    assert recipe(batch=256, lr=0.01).lr == 0.01
    assert recipe(name="resnet", batch=1024).lr == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("batch", "processes", "expected"),
    [(1024, 1, 128), (1024, 16, 64), (100, 1, 100), (300, 1, 100), (256, 4, 64)],
)
def test_images_per_gpu_divide_each_share_of_the_batch(batch: int, processes: int, expected: int):
    spec = load_pretraining({"data": "x", "recipe.batch": batch}, processes)
    assert spec.recipe.images_per_gpu == expected


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            {"recipe.batch": 10, "recipe.images_per_gpu": 4},
            "batch must be a multiple of images_per_gpu; got 10 and 4",
        ),
        (
            {"recipe.max_size": 300},
            "max_size and train_sizes are for detectors; .* squares of image_size",
        ),
        ({"recipe.iou_crop": 0.5}, "iou_crop is for detectors; pre-training has augment and flip"),
        ({"recipe.keep": "best_and_last"}, "keep must be last in pre-training"),
        ({"recipe.augment": "hard"}, "recipe.augment must be 'light' or 'strong'; got 'hard'"),
        ({"recipe.label_smoothing": 1}, "recipe.label_smoothing must be less than 1; got 1"),
        ({"recipe.lable_smoothing": 0}, "did you mean 'label_smoothing'"),
        (
            {"recipe.name": "swim"},
            "recipe must be one of resnet, swin; got 'swim' .did you mean 'swin'",
        ),
        (
            {"search.seed": 1},
            "a key of the spec must be one of data, recipe, seed, checkpoint_s; got 'search'",
        ),
        ({"recipe": "paper"}, "recipe must be one of resnet, swin; got 'paper'"),
        ({"recipe.batch": "many"}, "recipe.batch must be a valid integer"),
    ],
)
def test_what_is_refused(flags: dict[str, object], words: str):
    with pytest.raises(SpecError, match=words):
        load_pretraining({"data": "x", **flags})


def test_a_batch_that_several_processes_cannot_share():
    with pytest.raises(SpecError, match="recipe.batch 10 cannot be divided among 4 processes"):
        load_pretraining({"data": "x", "recipe.batch": 10}, processes=4)
