"""Instance masks on their way: COCO's polygons and run-length codes, pixels, what mask heads learn,
results.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import roi_align
from torchvision.transforms.v2 import functional as F

from nas.data.box_table import Box
from nas.data.coco import CocoSplit, ImageRecord
from nas.data.dataset import Batch, DetectionDataset
from nas.data.fingerprint import fingerprint
from nas.data.masks import encode_masks, rasterize
from nas.data.segmentation import check_segmentation
from nas.data.split_index import read_index, write_index
from nas.data.transforms import TransformSampler
from nas.data.validation import check_split
from nas.models.detectors.mask_head import averaged_masks, mask_loss, mask_targets
from nas.reports.dataset import same_data

HEIGHT, WIDTH = 40, 60
TRIANGLE = [5.0, 5.0, 45.0, 10.0, 20.0, 35.0]
SQUARE = [30, 20, 55, 20, 55, 38, 30, 38]


def coded(
    *polygons: list[float], text: bool, height: int = HEIGHT, width: int = WIDTH
) -> dict[str, Any]:
    """A run-length code of the same pixels, as text or as numbers."""
    code = coco_mask.merge(coco_mask.frPyObjects(list(polygons), height, width))
    if text:
        return {"size": [height, width], "counts": code["counts"].decode()}
    flat = coco_mask.decode(code).ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *changes, flat.size]).tolist()
    return {"size": [height, width], "counts": runs if flat[0] == 0 else [0, *runs]}


@pytest.mark.parametrize(
    "segmentation",
    [
        [TRIANGLE],
        [TRIANGLE, SQUARE],
        coded(TRIANGLE, text=True),
        coded(TRIANGLE, text=False),
        coded(SQUARE, text=True),
    ],
)
def test_what_coco_has_is_used_as_it_is(segmentation: Any):
    assert check_segmentation(segmentation, HEIGHT, WIDTH) == (segmentation, None)


@pytest.mark.parametrize("segmentation", [None, []])
def test_no_mask_is_no_fault(segmentation: Any):
    assert check_segmentation(segmentation, HEIGHT, WIDTH) == (None, None)


def test_text_codes_of_any_mask_are_read_as_pycocotools_reads_them():
    rng = np.random.default_rng(0)
    for share in (0, 0.001, 0.1, 0.5, 0.99, 1):
        pixels = np.asfortranarray((rng.random((317, 211)) < share).astype(np.uint8))
        code = {"size": [317, 211], "counts": coco_mask.encode(pixels)["counts"].decode()}
        assert check_segmentation(code, 317, 211) == (code, None)


FAULTY = [
    ([[1, 2, 3, 4]], "polygon [1, 2, 3, 4] is not"),
    ([[1, 2, 3, 4, 5, 6, 7]], "is not three or more points"),
    ([1, 2, 3, 4, 5, 6], "polygon 1 is not"),
    ([[1, 2, 3, 4, 5, "6"]], "is not three or more points"),
    ([[1, 2, 3, 4, 5, math.nan]], "is not three or more points"),
    ([[1, 2, 3, 4, 5, 10**400]], "is not three or more points"),
    ([[1, 2, 3, 4, 5, 10**6]], "near the image"),
    ([[]], "polygon [] is not"),
    ("x", "neither polygons nor a run-length code"),
    ({"counts": [2400]}, "size None, image 40 high and 60 wide"),
    ({"size": [60, 40], "counts": [2400]}, "size [60, 40], image 40 high"),
    ({"size": [40, 60], "counts": [2399]}, "2399 pixels, image of 2400"),
    ({"size": [40, 60], "counts": [-1, 2401]}, "counts [-1, 2401]"),
    ({"size": [40, 60], "counts": "\x00"}, "counts '\\x00'"),
    ({"size": [40, 60], "counts": "o"}, "counts 'o'"),  # more is to follow
    ({"size": [40, 60], "counts": "1"}, "1 pixels, image of 2400"),
    ({"size": [40, 60]}, "counts None"),
]


@pytest.mark.parametrize(("segmentation", "words"), FAULTY)
def test_a_malformed_mask_is_named_and_its_box_is_used(
    tmp_path: Path, segmentation: Any, words: str
):
    split = written(tmp_path, segmentation)
    (problem,) = split.problems
    assert (problem.kind, problem.repaired, problem.file, problem.annotation_id) == (
        "malformed mask",
        True,
        "a.png",
        1,
    )
    assert words in problem.detail
    (box,) = split.split.boxes
    assert (box.bbox, box.segmentation) == ((5, 5, 40, 30), None)


def test_the_sound_polygons_of_a_mask_are_kept(tmp_path: Path):
    checked = written(tmp_path, [TRIANGLE, [1, 2]])
    assert [problem.kind for problem in checked.problems] == ["malformed mask"]
    assert checked.split.boxes[0].segmentation == [TRIANGLE]


def written(root: Path, segmentation: Any) -> Any:
    entry = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [5, 5, 40, 30],
        "area": 1200,
        "iscrowd": 0,
    }
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}],
        "annotations": [
            entry if segmentation is KeyError else entry | {"segmentation": segmentation}
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (root / "train").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(root / "train" / "a.png")
    (root / "instances_train.json").write_text(json.dumps(coco))
    return check_split(root, "train")


@pytest.mark.parametrize(
    "segmentation", [[TRIANGLE, SQUARE], coded(TRIANGLE, text=True), coded(TRIANGLE, text=False)]
)
def test_masks_survive_the_index_file(tmp_path: Path, segmentation: Any):
    split = written(tmp_path, segmentation).split
    assert split.has_masks
    write_index(tmp_path / "index.json", split)
    assert read_index(tmp_path / "index.json") == split
    assert split.to_coco()["annotations"][0]["segmentation"] == segmentation


@pytest.mark.parametrize(
    ("segmentation", "same"), [([TRIANGLE], False), ([SQUARE], False), ([], True), (KeyError, True)]
)
def test_data_without_masks_have_the_fingerprint_they_always_had(
    tmp_path: Path, segmentation: Any, same: bool
):
    split = written(tmp_path, segmentation).split
    box = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [5.0, 5.0, 40.0, 30.0],
        "area": 1200.0,
        "iscrowd": 0,
    }
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "width": 60, "height": 40}],
        "annotations": [box],
    }
    text = json.dumps(coco | {"categories": [{"id": 1, "name": "cat"}]}, sort_keys=True)
    sizes = str([(tmp_path / "train" / "a.png").stat().st_size])
    before = hashlib.sha256((text + sizes).encode()).hexdigest()[:16]
    assert same_data(before, fingerprint([split.without_masks()]))
    assert same_data(before, fingerprint([split])) == same


# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(40, 60), (80, 120), (23, 47)])
def test_polygons_are_resized_then_drawn(size: tuple[int, int]):
    (mask,) = rasterize([[TRIANGLE, SQUARE]], (HEIGHT, WIDTH), size)
    scaled = [
        [value * (size[1 - i % 2] / (WIDTH, HEIGHT)[i % 2]) for i, value in enumerate(p)]
        for p in (TRIANGLE, SQUARE)
    ]
    expected = coco_mask.decode(coco_mask.frPyObjects(scaled, *size)).max(axis=2)
    assert mask.dtype == torch.uint8
    assert np.array_equal(mask.numpy(), expected)


@pytest.mark.parametrize("text", [True, False])
def test_codes_are_decoded_and_resized_like_pixels(text: bool):
    code = coded(TRIANGLE, text=text)
    (same,) = rasterize([code], (HEIGHT, WIDTH), (HEIGHT, WIDTH))
    assert np.array_equal(same.numpy(), coco_mask.decode(coded(TRIANGLE, text=True)))
    (mask,) = rasterize([code], (HEIGHT, WIDTH), (80, 120))
    image = F.resize_image(255 * same[None].expand(3, -1, -1), [80, 120], antialias=True)
    assert torch.equal(mask, (image[0] > 127).byte())


def test_polygon_and_code_of_one_shape_agree_up_to_the_edge():
    both = rasterize([[TRIANGLE], coded(TRIANGLE, text=True)], (HEIGHT, WIDTH), (100, 150))
    assert (both[0] != both[1]).sum() < 0.05 * both[0].sum()


def test_what_lies_outside_the_image_is_cut_off():
    around = [-10, -20, 70, -20, 70, 60, -10, 60]
    assert rasterize([[around]], (HEIGHT, WIDTH), (HEIGHT, WIDTH)).all()
    assert not rasterize([[[70, 5, 80, 5, 80, 9]], None], (HEIGHT, WIDTH), (HEIGHT, WIDTH)).any()


@pytest.mark.parametrize("flip", [0, 1])
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize(("turn", "seed"), [(0, 0), (1, 0), (1, 2), (1, 3)])
def test_masks_go_where_their_pixels_go(
    tmp_path: Path, index: int, flip: int, turn: float, seed: int
):
    # The image is its own mask: white where the object is.
    shapes: list[Any] = [[TRIANGLE], coded(TRIANGLE, text=True)]
    pixels = 255 * rasterize([[TRIANGLE]], (HEIGHT, WIDTH), (HEIGHT, WIDTH))[0]
    Image.fromarray(pixels.numpy()).convert("RGB").save(tmp_path / "a.png")
    box, crowd = (
        Box(1, 1, 1, (5, 5, 40, 30), 600, 0, shapes[index]),
        Box(2, 1, 1, (0, 0, 9, 9), 81, 1, [SQUARE]),
    )
    thin, bare = Box(3, 1, 1, (0, 0, 0.5, 9), 4, 0, [SQUARE]), Box(4, 1, 1, (1, 1, 30, 30), 900, 0)
    split = CocoSplit(
        tmp_path, (ImageRecord(1, "a.png", WIDTH, HEIGHT),), (thin, box, crowd, bare), ((1, "cat"),)
    )
    view = TransformSampler((72,), 120, flip, masks=True, turn=turn)
    image, target, draw = DetectionDataset(split, view)[(0, seed)]
    assert draw.turns == (turn and {0: 1, 2: 3, 3: 2}[seed])
    batch = Batch([image], [target], (draw,)).to(torch.device("cpu"))
    mask, empty = batch.targets[0]["masks"]  # the thin box has vanished, crowds are left out
    assert mask.shape == batch.images[0].shape[1:] == (72, 108)
    assert ((batch.images[0][0] > 0.5) != mask.bool()).float().mean() < (0.02, 0.002)[index]
    assert not empty.any()
    left, right = target["boxes"][0, 0::2].tolist()
    columns = mask.any(dim=0).nonzero()
    assert (columns[0].item(), columns[-1].item() + 1) == pytest.approx((left, right), abs=2.5)
    assert "masks" not in DetectionDataset(split, TransformSampler((72,), 120, flip))[(0, 0)][1]


def test_an_image_without_boxes_has_no_masks_but_the_shape(tmp_path: Path):
    images = tuple(ImageRecord(number, f"{number}.png", WIDTH, HEIGHT) for number in (1, 2))
    for image in images:
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / image.file_name)
    split = CocoSplit(
        tmp_path, images, (Box(1, 1, 1, (5, 5, 40, 30), 600, 0, [TRIANGLE]),), ((1, "cat"),)
    )
    assert DetectionDataset(split, TransformSampler((80,), 120, masks=True))[(1, 0)][1][
        "masks"
    ].shape == (0, 80, 120)
    boxes_only = DetectionDataset(split.without_masks(), TransformSampler((80,), 120, masks=True))
    assert "masks" not in boxes_only[(0, 0)][1]


# --------------------------------------------------------------------------------------------------


def some_boxes(count: int, generator: torch.Generator) -> Tensor:
    """Also beyond the border of an image of 50 x 70, and smaller than a pixel."""
    corner = torch.rand(count, 2, generator=generator) * 80 - 10
    return torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * 60 + 0.2], dim=1)


def test_targets_equal_roi_align_with_one_sample_a_cell():
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand(5, 50, 70, generator=generator) < 0.5).byte()
    boxes, objects = some_boxes(200, generator), torch.randint(5, (200,), generator=generator)
    rois = torch.cat([objects[:, None].float(), boxes], dim=1)
    # A border of zeros, where RoIAlign would repeat the outermost pixels for up to a pixel more.
    padded, moved = (
        torch.nn.functional.pad(masks[:, None].float(), (40,) * 4),
        rois + torch.tensor([0, 40, 40, 40, 40]),
    )
    smooth = roi_align(padded, moved, (28, 28), sampling_ratio=1, aligned=True)[:, 0]
    unsure = (smooth - 0.5).abs() < 1e-4
    assert torch.equal(
        mask_targets(masks, boxes, objects)[~unsure], (smooth >= 0.5).float()[~unsure]
    )
    assert unsure.float().mean() < 0.01


def test_targets_are_the_polygon_drawn_into_the_box():
    # Slow and obvious: the polygon moved and scaled so that the box is the image, drawn there by
    # pycocotools.
    generator, size = torch.Generator().manual_seed(1), 28
    mask = rasterize([[[10 * v for v in TRIANGLE]]], (400, 600), (400, 600))
    boxes = torch.tensor([[50.0, 50, 450, 350]]) + 60 * (
        torch.rand(30, 4, generator=generator) - 0.5
    )
    found = mask_targets(mask, boxes, torch.zeros(30, dtype=torch.int64))
    for target, (x1, y1, x2, y2) in zip(found, boxes.tolist(), strict=True):
        points = (
            (10 * np.reshape(TRIANGLE, (-1, 2)) - (x1, y1)) * size / np.array([x2 - x1, y2 - y1])
        )
        (code,) = coco_mask.frPyObjects([points.ravel().tolist()], size, size)
        assert (target.numpy() != coco_mask.decode(code)).mean() < 0.05
        assert target.mean() > 0.2


@pytest.mark.parametrize(
    "boxes",
    [[[-500.0, -500, 900, 900]], [[10.0, 10, 10, 10]], [[0.0, 0, 70, 50]], np.zeros((0, 4))],
)
def test_degenerate_boxes_have_targets(boxes: Any):
    masks = torch.ones(1, 50, 70, dtype=torch.uint8)
    given = torch.as_tensor(np.array(boxes), dtype=torch.float32)
    found = mask_targets(masks, given, torch.zeros(len(given), dtype=torch.int64))
    assert found.shape == (len(given), 28, 28)
    assert found.isfinite().all()
    assert found.all() or boxes[0][0] == -500


def test_the_loss_by_hand():
    # Logits of 0 cost log 2 a cell whatever is wanted; of t where 1 is wanted log(1 + exp(-t)).
    logits, wanted = torch.zeros(3, 4, 28, 28), torch.zeros(3, 28, 28)
    wanted[:2, :14] = 1
    labels = torch.tensor([1, 2, 3])
    assert mask_loss(logits, labels, wanted, [3]).item() == pytest.approx(math.log(2))
    logits[0, 0] = torch.where(wanted[0] > 0, 3.0, -3.0)
    right = math.log(1 + math.exp(-3))
    assert mask_loss(logits, labels, wanted, [3]).item() == pytest.approx((right + math.log(2)) / 2)
    logits[1, 1] = torch.where(wanted[1] > 0, -3.0, 3.0)
    assert mask_loss(logits, labels, wanted, [3]).item() == pytest.approx((right + right + 3) / 2)
    other_class = mask_loss(logits, torch.tensor([4, 4, 4]), wanted, [3])
    assert other_class.item() == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("per_image", "first", "second"),
    [([3], 1 / 2, 1 / 2), ([2, 1], 1 / 2, 1 / 2), ([1, 2], 1, 1), ([0, 1, 0, 1, 1], 1, 1)],
)
def test_the_loss_is_a_sum_over_images_of_their_means(
    per_image: list[int], first: float, second: float
):
    # Three boxes, the last without a mask.
    generator = torch.Generator().manual_seed(3)
    logits, labels = torch.randn(3, 2, 4, 4, generator=generator), torch.tensor([1, 2, 2])
    wanted = (torch.rand(3, 4, 4, generator=generator) < 0.5).float()
    wanted[2] = 0
    alone = [
        mask_loss(logits[i : i + 1], labels[i : i + 1], wanted[i : i + 1], [1]) for i in (0, 1)
    ]
    assert mask_loss(logits, labels, wanted, per_image).item() == pytest.approx(
        (first * alone[0] + second * alone[1]).item()
    )


def test_boxes_without_masks_and_no_boxes_cost_nothing():
    logits = torch.randn(2, 3, 28, 28, requires_grad=True)
    loss = mask_loss(logits, torch.tensor([1, 3]), torch.zeros(2, 28, 28), [1, 1])
    loss.backward()
    assert (loss, logits.grad.abs().max()) == (0, 0)
    none = torch.zeros(0, 3, 28, 28, requires_grad=True)
    loss = mask_loss(none, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 28, 28), [0, 0])
    loss.backward()
    assert loss == 0


@pytest.mark.parametrize(("per_image", "boxes"), [([3], (3, 3, 3)), ([1, 0, 2], (1, 2, 2))])
def test_the_gradient_of_the_loss(per_image: list[int], boxes: tuple[int, ...]):
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(3, 2, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    wanted = (torch.rand(3, 4, 4, generator=generator) < 0.5).double()
    mask_loss(logits, torch.tensor([1, 2, 1]), wanted, per_image).backward()
    for place, label in enumerate(
        (0, 1, 0)
    ):  # (sigmoid - wanted) / cells / boxes of the image, for the right class alone
        expected = (logits[place, label].sigmoid() - wanted[place]) / 16 / boxes[place]
        assert torch.allclose(
            logits.grad[place, label].float(), expected.detach().float(), atol=1e-7
        )
        assert not logits.grad[place, 1 - label].any()


def test_masks_are_averaged_as_probabilities():
    logits = [torch.full((1, 2, 28, 28), value) for value in (-1.0, 0.0, 4.0)]
    found = averaged_masks(logits, torch.tensor([2]))
    assert found.shape == (1, 28, 28)
    assert torch.allclose(found, torch.tensor([-1.0, 0, 4]).sigmoid().mean())


# --------------------------------------------------------------------------------------------------


def test_a_mask_survives_the_way_to_the_grid_and_back():
    size, boxes = (400, 600), torch.tensor([[50.0, 50, 450, 350], [0, 0, 600, 400]])
    masks = rasterize([[[10 * v for v in TRIANGLE]]] * 2, size, size)
    codes = encode_masks(mask_targets(masks, boxes, torch.tensor([0, 1])), boxes, size)
    assert json.loads(json.dumps(codes)) == codes
    found = torch.from_numpy(coco_mask.decode(codes)).permute(2, 0, 1).bool()
    iou = (found & masks.bool()).flatten(1).sum(1) / (found | masks.bool()).flatten(1).sum(1)
    assert (iou > 0.93).all()  # cells of 14 and of 21 pixels


def test_no_detections_and_tiny_ones_have_codes():
    assert encode_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), (HEIGHT, WIDTH)) == []
    boxes = torch.tensor(
        [[59.6, 39.7, 60.0, 40.0], [0.0, 0.0, 0.01, 0.01], [-5.0, -5.0, 70.0, 50.0]]
    )
    codes = encode_masks(torch.ones(3, 28, 28), boxes, (HEIGHT, WIDTH))
    assert coco_mask.area(codes).tolist() == pytest.approx([1, 1, 2400], abs=1)
