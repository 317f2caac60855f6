"""Parts of the detectors against torchvision's own or against a slow, obvious version."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign, roi_align, roi_pool

from nas.config.sections import DetectorSpec
from nas.models.detectors import build_detector
from nas.models.detectors.dense_head import STRIDES, PyramidAnchors, centers_of
from nas.models.detectors.faster_rcnn import (
    BoxPredictor,
    PyramidRoIAlign,
    PyramidRoIPool,
    region_proposals,
)
from search_spaces.layout import Layout


def pyramid() -> tuple[dict[str, torch.Tensor], list[torch.Tensor], list[tuple[int, int]]]:
    generator = torch.Generator().manual_seed(0)
    features = {
        str(i): torch.rand(2, 8, 256 // 2**i, 256 // 2**i, generator=generator) for i in range(4)
    }
    corner = torch.rand(40, 2, generator=generator) * 500
    size = torch.exp(torch.rand(40, 2, generator=generator) * 6.5)
    boxes = torch.cat([corner, (corner + size).clamp(max=1023)], dim=1)
    boxes[0] = torch.tensor([10.0, 20.0, 1000.0, 980.0])  # one for the last level
    return features, [boxes[:25], boxes[25:]], [(1024, 1024), (1024, 1024)]


def test_roi_align_equals_torchvision_where_torchvision_guesses_the_scales_right():
    features, boxes, sizes = pyramid()
    theirs = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    assert torch.equal(PyramidRoIAlign()(features, boxes, sizes), theirs(features, boxes, sizes))


def test_roi_align_on_small_images_uses_the_true_scales():
    # 65 pixels are padded to 96: the first level is 24 wide, which torchvision takes for a scale of
    # 1/2.
    features = {str(i): torch.rand(1, 8, 24 // 2**i, 24 // 2**i) for i in range(4)}
    boxes = [torch.tensor([[4.0, 8.0, 60.0, 62.0]])]
    pooled = PyramidRoIAlign()(features, boxes, [(65, 65)])
    assert torch.allclose(pooled, roi_align(features["0"], boxes, 7, 0.25, 2))


def test_roi_pool_equals_one_box_at_a_time():
    features, boxes, sizes = pyramid()
    pooled = PyramidRoIPool()(features, boxes, sizes)
    position = 0
    for image, of_image in enumerate(boxes):
        for box in of_image:
            # Feature pyramid networks, equation 1, levels 2 to 5.
            area = float((box[2] - box[0]) * (box[3] - box[1]))
            level = min(max(math.floor(4 + math.log2(math.sqrt(area) / 224 + 1e-6)), 2), 5) - 2
            feature = features[str(level)][image : image + 1]
            expected = roi_pool(feature, [box[None]], 7, 0.25 / 2**level)
            assert torch.equal(pooled[position : position + 1], expected)
            position += 1


def test_roi_pool_gradient_reaches_every_level():
    features, boxes, sizes = pyramid()
    for feature in features.values():
        feature.requires_grad_(True)
    PyramidRoIPool()(features, boxes, sizes).square().sum().backward()
    assert all(feature.grad.abs().sum() > 0 for feature in features.values())


@torch.no_grad()
def test_proposals_of_large_images_are_exact_in_bf16():
    # Coordinates up to 1344, where bf16 knows every eighth pixel; the network's own rounding moves
    # boxes by a fraction of one.
    torch.manual_seed(0)
    network = region_proposals(8).eval()
    torch.nn.init.normal_(network.head.bbox_pred.weight, std=0.05)
    images = ImageList(torch.zeros(1, 3, 800, 1344), [(800, 1344)])
    levels = {
        str(i): torch.randn(1, 8, -(-800 // stride), -(-1344 // stride))
        for i, stride in enumerate((4, 8, 16, 32, 64))
    }
    levels = {
        name: level.bfloat16() for name, level in levels.items()
    }  # as a pyramid gives them under autocast
    (exact,), _ = network(images, {name: level.float() for name, level in levels.items()})
    with torch.autocast("cpu", torch.bfloat16):
        (found,), _ = network(images, levels)
        anchors = network.anchor_generator(images, list(levels.values()))
    assert anchors[0].dtype == torch.float32
    corner = torch.tensor([[20.0 * 64, 12 * 64]])  # also where the map was rounded up
    assert torch.equal(centers_of(anchors[0])[-3:], corner.expand(3, 2))
    assert found.dtype == torch.float32
    assert torch.cdist(found, exact).min(dim=1).values.quantile(0.9) < 1


def test_background_boxes_are_constant_zero():
    logits, offsets = BoxPredictor(16, 5)(torch.rand(7, 16))
    assert logits.shape == (7, 6)
    assert offsets.shape == (7, 24)
    assert not offsets[:, :4].any()
    assert offsets[:, 4:].abs().min() > 0


@pytest.fixture
def fcos_pair() -> tuple[torch.nn.Module, FCOS]:
    """Ours, and torchvision's with the same backbone and weights: biases of its towers zero."""
    torch.manual_seed(0)
    ours = build_detector(
        Layout.parse("C1-C1-T1-T1@16"), DetectorSpec(name="fcos", channels=32), num_classes=4
    )
    anchors = AnchorGenerator(((8,), (16,), (32,), (64,), (128,)), ((1.0,),) * 5)
    theirs = FCOS(
        ours.backbone,
        5,
        anchor_generator=anchors,
        score_thresh=0.05,
        nms_thresh=0.6,
        topk_candidates=1000,
    )
    theirs.transform = ours.transform
    state = {
        name: tensor
        for name, tensor in ours.head.state_dict().items()
        if not name.endswith("scales")
    }
    for name, tensor in theirs.head.state_dict().items():
        if name.endswith("bias") and ".conv." in name and name not in state:
            state[name] = torch.zeros_like(tensor)
    # torchvision's first logit belongs to a class that never occurs; a large negative bias silences
    # it.
    for leaf, silent in (("weight", 0.0), ("bias", -1e4)):
        name = f"classification_head.cls_logits.{leaf}"
        state[name] = torch.cat([torch.full_like(state[name][:1], silent), state[name]])
    theirs.head.load_state_dict(state)
    return ours, theirs


def test_fcos_equals_torchvisions_with_labels_from_1(fcos_pair: tuple[torch.nn.Module, FCOS]):
    ours, theirs = fcos_pair
    images = [torch.rand(3, 96, 128), torch.rand(3, 120, 64)]
    targets = [
        {
            "boxes": torch.tensor([[5.0, 5, 60, 70], [20, 10, 100, 90]]),
            "labels": torch.tensor([4, 1]),
        },
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    for mine, yours in zip(
        ours.train()(images, targets).values(),
        theirs.train()(images, targets).values(),
        strict=True,
    ):
        assert torch.allclose(mine, yours, rtol=1e-5)
    with torch.no_grad():
        for module in (ours, theirs):
            module.eval()
        for mine, yours in zip(ours(images), theirs(images), strict=True):
            assert torch.allclose(mine["boxes"], yours["boxes"], atol=1e-4)
            assert torch.equal(mine["labels"], yours["labels"])
            assert torch.allclose(mine["scores"], yours["scores"], atol=1e-6)


def crowd(count: int, seed: int) -> dict[str, torch.Tensor]:
    """Overlapping boxes of 8 to 400 pixels, whose areas differ by more than torchvision's single
    precision can tell (8).
    """
    generator = torch.Generator().manual_seed(seed)
    side = torch.exp(torch.linspace(2, 6, count))[:, None] * (
        0.9 + 0.2 * torch.rand(count, 2, generator=generator)
    )
    corner = torch.rand(count, 2, generator=generator) * 300
    boxes = torch.cat([corner, corner + side], dim=1)
    assert (side.prod(dim=1).sort().values.diff() > 8).all()
    return {"boxes": boxes, "labels": torch.randint(1, 5, (count,), generator=generator)}


def test_fcos_losses_and_gradients_on_many_boxes_equal_torchvisions(
    fcos_pair: tuple[torch.nn.Module, FCOS],
):
    images = [
        torch.rand(3, 384, 256),
        torch.rand(3, 320, 352),
        torch.rand(3, 384, 384),
    ]  # padded to a multiple of 128
    targets = [crowd(12, 3), crowd(1, 1), crowd(20, 2)]
    found = []
    for network in fcos_pair:
        losses = network.train()(images, targets)
        gradients = torch.autograd.grad(
            sum(losses.values()), list(network.backbone.parameters()), allow_unused=True
        )
        found.append((losses, gradients))
    (ours, our_gradients), (theirs, their_gradients) = found
    for name, loss in theirs.items():
        assert ours[name].item() == pytest.approx(loss.item(), rel=1e-5)
    for mine, yours in zip(our_gradients, their_gradients, strict=True):
        assert (mine is None) == (yours is None)
        if mine is not None:
            assert torch.allclose(mine, yours, atol=1e-4 * yours.abs().max())


@pytest.mark.parametrize("name", ["fcos", "atss", "reppoints_v2"])
def test_a_step_never_asks_the_device_for_a_value(name: str):
    """On meta there is nothing to ask for: `item`, `nonzero` and boolean indexing raise."""
    with torch.device("meta"):
        detector = build_detector(
            Layout.parse("C1-C1-T2-T1@16"), DetectorSpec(name=name, channels=32), num_classes=4
        )
        images = [torch.rand(3, 96, 128), torch.rand(3, 120, 64)]
        labels = [torch.ones(count, dtype=torch.int64) for count in (3, 0)]
        targets = [{"boxes": torch.rand(len(label), 4), "labels": label} for label in labels]
    losses = detector.train()(images, targets)
    sum(losses.values()).backward()
    with pytest.raises(Exception, match="meta"):
        losses["classification"].item()


def test_anchors_equal_torchvisions_where_torchvision_guesses_the_strides_right():
    batch = ImageList(torch.empty(2, 3, 256, 384), [(256, 384), (250, 300)])
    levels = [torch.empty(2, 1, 256 // stride, 384 // stride) for stride in STRIDES]
    theirs = AnchorGenerator(tuple((8 * stride,) for stride in STRIDES), ((1.0,),) * 5)
    for mine, yours in zip(PyramidAnchors(8)(batch, levels), theirs(batch, levels), strict=True):
        assert torch.equal(mine, yours)


def test_anchors_lie_where_a_chain_of_convolutions_looks():
    """Convolutions with stride 2 that pass the pixel at their centre on: at each location of a
    level stands where it looks.
    """
    height, width = 1056, 1376
    looked_at = torch.stack(
        torch.meshgrid(torch.arange(1.0 * width), torch.arange(1.0 * height), indexing="xy")
    )[None]
    middle = torch.zeros(2, 1, 3, 3)
    middle[:, :, 1, 1] = 1
    levels = [looked_at]
    for _ in range(7):
        levels.append(F.conv2d(levels[-1], middle, stride=2, padding=1, groups=2))
    levels = levels[3:]
    batch = ImageList(torch.empty(1, 3, height, width), [(height, width)])
    (anchors,) = PyramidAnchors(8)(
        batch, [level.bfloat16() for level in levels]
    )  # as under autocast
    assert torch.equal(
        centers_of(anchors), torch.cat([level[0].flatten(1).t() for level in levels])
    )
    sides = (anchors[:, 2:] - anchors[:, :2]).split([level[0, 0].numel() for level in levels])
    assert [set(side.flatten().tolist()) for side in sides] == [
        {8.0 * stride} for stride in STRIDES
    ]


def test_each_level_has_its_own_scale(fcos_pair: tuple[torch.nn.Module, FCOS]):
    head = fcos_pair[0].head.regression_head
    levels = [torch.rand(1, 32, 4, 4) for _ in range(5)]
    torch.nn.init.constant_(head.bbox_reg.bias, 1.0)
    plain, _ = head(levels)
    with torch.no_grad():
        head.scales.copy_(torch.arange(1.0, 6.0))
    scaled, _ = head(levels)
    for level in range(5):
        part = slice(16 * level, 16 * level + 16)
        assert torch.allclose(scaled[:, part], plain[:, part] * (level + 1), rtol=1e-5)
