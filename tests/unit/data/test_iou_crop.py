"""Crops around objects: torchvision's, in the frame that the image had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.ops import box_iou
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from nas.config.spec import load_spec
from nas.data import transforms
from nas.data.box_table import Box
from nas.data.coco import CocoSplit, ImageRecord
from nas.data.dataset import Batch, DetectionDataset
from nas.data.iou_crop import draw_crop
from nas.data.seeding import seeded
from nas.data.transforms import POLICIES, TransformSampler, eval_transforms, train_transforms

SIZE = (80, 120)
BOXES = torch.tensor([[10.0, 8, 50, 60], [70, 20, 110, 70], [30, 50, 66, 78], [2, 2, 12, 9]])


@pytest.fixture
def split(tmp_path: Path) -> CocoSplit:
    """An image whose colours say where a pixel is, with a mask as large as each box."""
    ys, xs = torch.meshgrid(
        torch.linspace(40, 250, 80), torch.linspace(40, 250, 120), indexing="ij"
    )
    pixels = torch.stack([ys, xs, (ys + xs) / 2]).byte()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    boxes = []
    for number, (x1, y1, x2, y2) in enumerate(BOXES.tolist()):
        outline = [[x1, y1, x2, y1, x2, y2, x1, y2]]
        box = (x1, y1, x2 - x1, y2 - y1)
        boxes.append(Box(number, 1, number + 1, box, box[2] * box[3], 0, outline))
    names = tuple((number + 1, str(number)) for number in range(len(boxes)))
    return CocoSplit(tmp_path, (ImageRecord(1, "a.png", 120, 80),), tuple(boxes), names)


def shown(dataset: DetectionDataset, seed: int) -> tuple[Tensor, dict[str, Tensor], Any]:
    pixels, target, draw = dataset[(0, seed)]
    return Batch([pixels], [target], (draw,)).to(torch.device("cpu")).images[0], target, draw


@pytest.mark.parametrize("seed", range(30))
def test_it_is_torchvisions_crop_enlarged(
    split: CocoSplit, monkeypatch: pytest.MonkeyPatch, seed: int
):
    asked: list[int] = []

    def draw(size: tuple[int, int], boxes: Tensor, crop_seed: int) -> Any:
        asked.append(crop_seed)
        return draw_crop(size, boxes, crop_seed)

    monkeypatch.setattr(transforms, "draw_crop", draw)
    dataset = DetectionDataset(split, TransformSampler((80,), 160, iou_crop=1.0))
    image, target, drawn = shown(dataset, seed)
    whole = tv_tensors.Image(F.pil_to_tensor(Image.open(split.folder / "a.png")))
    boxes = tv_tensors.BoundingBoxes(BOXES, format="XYXY", canvas_size=SIZE)
    with seeded(asked[0]):
        part, theirs = v2.RandomIoUCrop()(whole, boxes)
    kept = theirs.as_subclass(Tensor).any(dim=1)
    assert target["labels"].tolist() == (kept.nonzero()[:, 0] + 1).tolist()
    x1, y1, x2, y2 = drawn.visible
    ratio = min(80 / part.shape[1], 120 / part.shape[2])
    assert (y2 - y1, x2 - x1) == pytest.approx([ratio * side for side in part.shape[1:]], abs=1)
    assert image.shape == (3, *SIZE)  # of the frame, in the middle of which it is
    assert (x1 + x2, y1 + y2) == pytest.approx((120, 80), abs=1)
    scale = torch.tensor([x2 - x1, y2 - y1] * 2) / torch.tensor([*part.shape[:0:-1]] * 2)
    mine = target["boxes"] - torch.tensor([x1, y1, x1, y1])
    assert torch.allclose(mine, theirs[kept].as_subclass(Tensor) * scale, atol=1.5)
    resized = F.resize(part, [y2 - y1, x2 - x1]).float() / 255
    assert (image[:, y1:y2, x1:x2] - resized).abs().max() < 0.03
    outside = image.clone()
    outside[:, y1:y2, x1:x2] = 0
    assert not outside.any()


def test_crops_are_within_ssds_limits():
    crops = [crop for seed in range(300) if (crop := draw_crop(SIZE, BOXES, seed))]
    assert len(crops) > 100
    for crop in crops:
        assert 0.3 * 80 - 1 <= crop.height <= 80
        assert 0.3 * 120 - 1 <= crop.width <= 120
        assert 0.5 <= crop.width / crop.height <= 2
        assert 0 <= crop.top <= 80 - crop.height
        assert 0 <= crop.left <= 120 - crop.width
        area = [crop.left, crop.top, crop.left + crop.width, crop.top + crop.height]
        assert box_iou(BOXES, torch.tensor([area], dtype=torch.float32)).max() > 0


def test_as_often_as_asked_and_a_seventh_of_these_is_left_whole():
    drawn = [draw_crop(SIZE, BOXES, seed) for seed in range(700)]
    assert 1 / 7 - 0.04 < drawn.count(None) / 700 < 3 / 7  # the highest overlaps are seldom found
    view = TransformSampler((80,), 160, iou_crop=0.5)
    cropped = sum(view.sample(*SIZE, seed, BOXES).window is not None for seed in range(700))
    assert cropped / 350 == pytest.approx(1 - drawn.count(None) / 700, abs=0.1)


def test_there_is_no_crop_without_objects_or_pixels():
    assert not any(draw_crop(SIZE, BOXES[:0], seed) for seed in range(20))
    assert not any(draw_crop((3, 9), torch.tensor([[0.0, 0, 3, 3]]), seed) for seed in range(20))
    view = TransformSampler((80,), 160, iou_crop=1.0)
    assert view.sample(*SIZE, 0).window is None


def test_nothing_else_changes_and_other_draws_do_not():
    plain = TransformSampler((32, 80), 160, 0.5, upend=0.5, ranges=POLICIES["strong"], turn=0.5)
    both = TransformSampler(
        (32, 80), 160, 0.5, upend=0.5, ranges=POLICIES["strong"], turn=0.5, iou_crop=0.5
    )
    torch.manual_seed(5)
    expected_next = torch.rand(1)
    torch.manual_seed(5)
    for seed in range(100):
        mine, theirs = both.sample(*SIZE, seed, BOXES), plain.sample(*SIZE, seed, BOXES)
        for name in ("size", "flipped", "upended", "turns", "colors"):
            assert getattr(mine, name) == getattr(theirs, name)
        assert mine == both.sample(*SIZE, seed, BOXES)
        assert mine == theirs or mine.window
    assert torch.equal(torch.rand(1), expected_next)


@pytest.mark.parametrize("seed", range(12))
def test_masks_and_boxes_stay_on_their_objects_however_all_is_turned(split: CocoSplit, seed: int):
    view = TransformSampler((80,), 160, 0.5, masks=True, upend=0.5, turn=0.7, iou_crop=1.0)
    image, target, draw = shown(DetectionDataset(split, view), seed)
    assert image.shape == (3, *SIZE)
    for mask, box in zip(target["masks"], target["boxes"].tolist(), strict=True):
        ys, xs = torch.where(mask == 1)
        found = [xs.min().item(), ys.min().item(), xs.max().item() + 1, ys.max().item() + 1]
        assert found == pytest.approx(box, abs=2.5)
        assert image[:, ys, xs].min() > 0.1  # none of it is beside the crop
    x1, y1, x2, y2 = draw.visible
    assert not image[:, :y1].any()
    assert not image[:, y2:].any()
    assert not image[:, :, :x1].any()
    assert not image[:, :, x2:].any()


@pytest.mark.parametrize("seed", range(12))
def test_pixels_say_that_a_turned_crop_is_where_its_boxes_are(split: CocoSplit, seed: int):
    """The first two colours of a pixel are its row and column in the file."""
    view = TransformSampler((80,), 160, 0.5, upend=0.5, turn=0.7, iou_crop=1.0)
    image, target, _ = shown(DetectionDataset(split, view), seed)
    for label, box in zip(target["labels"].tolist(), target["boxes"].tolist(), strict=True):
        x, y = int((box[0] + box[2]) / 2), int((box[1] + box[3]) / 2)
        row, column = (255 * image[:2, y, x] - 40) / 210 * (torch.tensor(SIZE) - 1)
        x1, y1, x2, y2 = BOXES[label - 1].tolist()
        assert y1 - 1 <= row <= y2 + 1
        assert x1 - 1 <= column <= x2 + 1


def test_the_recipe_crops_in_training_and_keeps_more_pixels_for_it():
    keys = {"data": "x", "recipe": {"name": "tiny", "iou_crop": 0.5}}
    recipe = load_spec(keys, {}).recipe
    view = train_transforms(recipe)
    assert any(view.sample(*SIZE, seed, BOXES).window for seed in range(20))
    assert not any(eval_transforms(recipe).sample(*SIZE, seed, BOXES).window for seed in range(20))
    assert view.cached_sides == (1.5 * recipe.image_size, round(1.5 * recipe.long_side))
    plain = train_transforms(recipe.model_copy(update={"iou_crop": 0.0}))
    assert plain.cached_sides == (recipe.image_size, recipe.long_side)
