"""Augmentation: pixels and boxes stay together, frames keep their size, and a policy draws what it
says.
"""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from nas.config.choices import AugmentationPolicy
from nas.config.spec import load_spec
from nas.data.dataset import visible_share
from nas.data.sampled_transform import Colors, SampledTransform
from nas.data.transforms import (
    POLICIES,
    TransformSampler,
    eval_transforms,
    resized_size,
    train_transforms,
)

SIZE = (40, 60)


def drawn(policy: AugmentationPolicy, count: int = 200, **changes: float) -> list[SampledTransform]:
    view = TransformSampler((32,), 64, 0.5, ranges=POLICIES[policy], **changes)
    return [view.sample(*SIZE, seed) for seed in range(count)]


@pytest.mark.parametrize("policy", POLICIES)
def test_the_frame_is_that_of_the_image_without_augmentation(policy: AugmentationPolicy):
    image = torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8)
    for draw in drawn(policy, 20):
        assert draw.size == resized_size(*SIZE, 32, 64) == (32, 48)
        pixels = draw.apply(image)
        assert pixels.shape == (3, 32, 48)
        assert pixels.min() >= 0
        assert pixels.max() <= 1


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("upended", [False, True])
@pytest.mark.parametrize(
    ("resized", "offset"), [((64, 96), (-20, -20)), ((20, 30), (5, 11)), ((32, 48), (0, 0))]
)
@pytest.mark.parametrize("turns", range(4))
def test_boxes_follow_the_pixels(
    flipped: bool, upended: bool, resized: tuple[int, int], offset: tuple[int, int], turns: int
):
    draw = SampledTransform((32, 48), flipped, resized, offset, upended, turns=turns)
    whole = torch.zeros(1, *resized)
    height, width = resized
    x1, y1, x2, y2 = width // 10, height * 7 // 20, width * 3 // 5, height * 3 // 5
    whole[:, y1:y2, x1:x2] = 1
    ys, xs = torch.where(draw.place(whole)[0] == 1)
    found = [xs.min().item(), ys.min().item(), xs.max().item() + 1, ys.max().item() + 1]
    placed = draw.place_boxes(torch.tensor([[x1, y1, x2, y2]], dtype=torch.float32))[0]
    expected = [
        min(max(value, 0), limit)
        for value, limit in zip(placed.tolist(), (48, 32, 48, 32), strict=True)
    ]
    assert found == expected


def test_what_a_smaller_image_leaves_free_is_black():
    image = torch.full((3, 16, 24), 255, dtype=torch.uint8)
    pixels = SampledTransform((32, 48), False, (16, 24), (10, 20)).apply(image)
    assert pixels[:, 10:26, 20:44].min() == 1
    assert pixels.sum() == 3 * 16 * 24


@pytest.mark.parametrize("policy", ["standard", "strong"])
def test_scales_are_those_of_the_policy(policy: AugmentationPolicy):
    low, high = POLICIES[policy].scales
    scales = [draw.whole[0] / draw.size[0] for draw in drawn(policy, 400)]
    assert low - 0.02 <= min(scales) < low + 0.1
    assert high - 0.15 < max(scales) <= high + 0.02
    moved = sum(scale != 1 for scale in scales) / len(scales)
    assert moved == pytest.approx(POLICIES[policy].jittered, abs=0.08)
    colors = torch.tensor([draw.colors for draw in drawn(policy, 400)])
    assert (colors[:, :3] - 1).abs().max() <= POLICIES[policy].colors
    assert colors[:, 3].abs().max() <= POLICIES[policy].hue
    assert (colors[:, :3] - 1).abs().max() > 0.9 * POLICIES[policy].colors


def test_light_flips_and_nothing_else_and_none_does_nothing():
    keys = {"data": "x", "recipe": {"name": "tiny", "augmentation": "light"}}
    light = train_transforms(load_spec(keys, {}).recipe)
    flips = [light.sample(*SIZE, seed) for seed in range(200)]
    assert 0.4 < sum(draw.flipped for draw in flips) / 200 < 0.6
    assert all(draw.whole == draw.size and draw.colors == Colors() for draw in flips)
    nothing = train_transforms(load_spec(keys, {"recipe.augmentation": "none"}).recipe)
    assert not any(nothing.sample(*SIZE, seed).flipped for seed in range(50))


def test_the_recipe_turns_images():
    recipe = load_spec({"data": "x", "recipe": {"name": "tiny", "quarter_turns": 0.5}}, {}).recipe
    draws = [train_transforms(recipe).sample(*SIZE, seed) for seed in range(50)]
    assert {draw.turns for draw in draws} == {0, 1, 2, 3}
    assert not any(eval_transforms(recipe).sample(*SIZE, seed).turns for seed in range(50))


def test_top_and_bottom_change_places_as_often_as_asked():
    assert not any(draw.upended for draw in drawn("light"))
    share = sum(draw.upended for draw in drawn("light", upend=0.3)) / 200
    assert share == pytest.approx(0.3, abs=0.1)


@pytest.mark.parametrize("size", [(40, 60), (60, 40), (32, 32)])
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turns_are_torchvisions_rotations(size: tuple[int, int], turns: int):
    """In the middle of the frame, as large as fits."""
    boxes = tv_tensors.BoundingBoxes(
        torch.tensor([[3.0, 4, 20, 9], [10, 11, 12, 30]]), format="XYXY", canvas_size=size
    )
    image = torch.rand(3, *size)
    expected, expected_boxes = (F.rotate(x, 90.0 * turns, expand=True) for x in (image, boxes))
    draw = SampledTransform(tuple(expected.shape[1:]), False, size, turns=turns)
    assert torch.equal(draw.place(image), expected)
    assert torch.allclose(draw.place_boxes(boxes.as_subclass(torch.Tensor)), expected_boxes)


@pytest.mark.parametrize("size", [(40, 60), (60, 40), (50, 50)])
def test_a_turned_image_fits_into_its_frame(size: tuple[int, int]):
    view = TransformSampler((32,), 64, turn=1.0)
    draws = [view.sample(*size, seed) for seed in range(300)]
    frame, (smaller, left) = {
        (40, 60): ((32, 48), ((21, 32), (0, 13))),
        (60, 40): ((48, 32), ((32, 21), (13, 0))),
        (50, 50): ((32, 32), ((32, 32), (0, 0))),
    }[size]
    assert Counter(draw.turns for draw in draws).keys() == {1, 2, 3}
    for turns, count in Counter(draw.turns for draw in draws).items():
        assert count == pytest.approx(100, abs=25)
        (form,) = {(d.size, d.resized, d.offset) for d in draws if d.turns == turns}
        assert form == ((frame, frame, (0, 0)) if turns == 2 else (frame, smaller, left))


def test_turns_change_nothing_else_that_is_drawn():
    """And are scaled and moved as other images are."""
    for turned, plain in zip(drawn("strong", turn=1.0), drawn("strong"), strict=True):
        assert (turned.flipped, turned.upended, turned.colors) == (
            plain.flipped,
            plain.upended,
            plain.colors,
        )
        if turned.turns == 2:
            assert (turned.resized, turned.offset) == (plain.resized, plain.offset)
        else:  # 48 pixels become 32
            assert turned.whole[1] / plain.whole[1] == pytest.approx(2 / 3, abs=0.05)
    share = sum(draw.turns > 0 for draw in drawn("light", turn=0.3)) / 200
    assert share == pytest.approx(0.3, abs=0.1)


def test_the_visible_share_by_hand():
    whole = torch.tensor([[0.0, 0.0, 10.0, 10.0], [-5.0, 0.0, 5.0, 10.0]])
    cut = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 5.0, 10.0]])
    assert visible_share(whole, cut).tolist() == [1.0, 0.5]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_seed_decides(policy: AugmentationPolicy):
    assert drawn(policy) == drawn(policy)


def test_colors_change_by_their_factors():
    image = torch.full((3, 2, 2), 0.4)
    assert torch.allclose(Colors(brightness=1.5).apply(image), torch.full((3, 2, 2), 0.6))
    gray = Colors(saturation=0.0).apply(torch.rand(3, 4, 4))
    assert torch.allclose(gray[0], gray[1], atol=1e-6)
