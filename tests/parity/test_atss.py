"""ATSS's assigner, box coder, losses and selection against slow, obvious versions and
torchvision's.
"""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from nas.config.sections import DetectorSpec
from nas.models.detectors import Detector, build_detector
from nas.models.detectors.atss_loss import atss_losses, decode_boxes, match
from nas.models.detectors.dense_head import STRIDES, PyramidAnchors, focal_loss, giou_loss
from nas.models.detectors.normalization import batch_divisors, divided
from search_spaces.layout import Layout

SIZE = (160, 224)
CLASSES = 3
Box = tuple[float, float, float, float]


def grid(height: int, width: int) -> tuple[Tensor, list[int]]:
    """Anchors [N, 4] and the locations of each level."""
    levels = [
        torch.empty(1, 1, math.ceil(height / stride), math.ceil(width / stride))
        for stride in STRIDES
    ]
    (anchors,) = PyramidAnchors(8)(
        ImageList(torch.empty(1, 3, height, width), [(height, width)]), levels
    )
    return anchors, [level.numel() for level in levels]


def overlap(a: Box, b: Box) -> float:
    def area(box: Box) -> float:
        return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)

    shared = area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    return shared / (area(a) + area(b) - shared)


def slow_match(anchors: list[Box], counts: list[int], boxes: list[Box]) -> list[int]:
    """Algorithm 1, line by line."""
    best = [(-1.0, -1)] * len(anchors)
    for g, box in enumerate(boxes):
        cx, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        candidates, start = [], 0
        for count in counts:
            level = range(start, start + count)
            middle = {
                i: ((anchors[i][0] + anchors[i][2]) / 2, (anchors[i][1] + anchors[i][3]) / 2)
                for i in level
            }
            candidates += sorted(
                level, key=lambda i: (middle[i][0] - cx) ** 2 + (middle[i][1] - cy) ** 2
            )[:9]
            start += count
        found = {i: overlap(anchors[i], box) for i in candidates}
        threshold = statistics.mean(found.values()) + statistics.stdev(found.values())
        for i, iou in found.items():
            x, y = (anchors[i][0] + anchors[i][2]) / 2, (anchors[i][1] + anchors[i][3]) / 2
            inside = min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 0.01
            if iou >= threshold and inside and iou > best[i][0]:
                best[i] = (iou, g)
    return [g for _, g in best]


def crowd(count: int, seed: int, size: tuple[int, int] = SIZE) -> Tensor:
    """Boxes [count, 4] of 4 to 150 pixels, some of them partly outside the image."""
    generator = torch.Generator().manual_seed(seed)
    center = torch.rand(count, 2, generator=generator) * torch.tensor([size[1], size[0]])
    half = torch.exp(torch.rand(count, 2, generator=generator) * 3.6) * 2
    return torch.cat([center - half, center + half], dim=1)


@pytest.mark.parametrize(
    "boxes",
    [
        *(crowd(count, seed) for count, seed in ((12, 0), (12, 1), (80, 3))),
        torch.zeros(0, 4),
        torch.tensor([[30.0, 40, 90, 120]]),
        torch.tensor([[-500.0, -400, 900, 700]]),
        torch.tensor([[500.0, 500, 560, 580]]),
        torch.tensor([[100.3, 60.2, 100.9, 60.7], [96, 56, 104, 64], [50, 50, 50, 50]]),
        torch.tensor([[24.0, 24, 88, 88]] * 3),
        torch.tensor([[36.0, 36, 60, 60], [20, 36, 76, 60], [36, 20, 60, 76]]),
        torch.tensor([[40.0, 40, 96, 96], [48, 48, 104, 104], [44, 44, 100, 100]]),
        crowd(500, 3),
    ],
    ids=[
        "random",
        "random again",
        "random once more",
        "no boxes",
        "one box",
        "larger than the image",
        "outside the image",
        "between the locations, on one, without area",
        "three times the same",
        "centres equally near to four locations",
        "neighbours",
        "500 boxes",
    ],
)
def test_the_assigner_equals_loops(boxes: Tensor):
    anchors, counts = grid(*SIZE)
    assert match(anchors, counts, boxes).tolist() == slow_match(
        anchors.tolist(), counts, boxes.tolist()
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_assigner_equals_loops_where_levels_have_fewer_locations_than_candidates(seed: int):
    anchors, counts = grid(64, 96)
    assert counts == [96, 24, 6, 2, 1]
    boxes = crowd(80, seed, (64, 96))
    assert match(anchors, counts, boxes).tolist() == slow_match(
        anchors.tolist(), counts, boxes.tolist()
    )


def test_a_location_that_two_boxes_claim_goes_to_the_larger_overlap():
    anchors, counts = grid(*SIZE)
    near, far = torch.tensor([32.0, 32, 96, 96]), torch.tensor([40.0, 40, 108, 108])
    alone = [match(anchors, counts, box[None]) == 0 for box in (near, far)]
    claimed = alone[0] & alone[1]
    assert claimed.any()
    overlaps = box_iou(torch.stack([near, far]), anchors)
    expected = (overlaps[1] > overlaps[0]).long()
    assert torch.equal(match(anchors, counts, torch.stack([near, far]))[claimed], expected[claimed])
    # An anchor that is a box belongs to it, whatever else is there.
    assert match(anchors, counts, torch.stack([far, near]))[
        (anchors == near).all(dim=1)
    ].tolist() == [1]


def test_a_fifth_of_the_candidates_become_positives():
    # The paper's figure (section 4.1): about 0.2 of the 45 candidates of an object, because
    # overlaps are nearly normal. In COCO's proportions; boxes of less than a stride or at the
    # border have fewer.
    anchors, counts = grid(800, 1344)
    generator = torch.Generator().manual_seed(0)
    center = torch.rand(200, 2, generator=generator) * 500 + 150
    half = torch.exp(torch.rand(200, 2, generator=generator) * 2 + 3)
    boxes = torch.cat([center - half, center + half], dim=1)
    positives = [(match(anchors, counts, box[None]) == 0).sum().item() for box in boxes]
    assert 0.15 * 45 < statistics.mean(positives) < 0.25 * 45


def test_boxes_are_decoded_as_by_torchvision_and_encoding_comes_back():
    anchors, _ = grid(*SIZE)
    deltas = (
        torch.randn(2, len(anchors), 4, generator=torch.Generator().manual_seed(0)) * 20
    )  # some beyond the limit of a size
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    for mine, each in zip(decode_boxes(deltas, anchors), deltas, strict=True):
        assert torch.allclose(
            mine, coder.decode_single(each, anchors), rtol=1e-5, atol=1e-2
        )  # sizes up to 60 anchors
    boxes = crowd(len(anchors), 5)
    assert torch.allclose(
        decode_boxes(coder.encode_single(boxes, anchors), anchors), boxes, atol=1e-3
    )


@pytest.fixture
def batch() -> tuple[dict[str, Tensor], Tensor, list[int], list[dict[str, Tensor]]]:
    """Outputs in double precision for two small images, the second without boxes."""
    anchors, counts = grid(64, 96)
    generator = torch.Generator().manual_seed(2)
    widths = {"cls_logits": CLASSES, "bbox_regression": 4, "bbox_ctrness": 1}
    outputs = {
        name: torch.randn(
            2, len(anchors), width, generator=generator, dtype=torch.float64
        ).requires_grad_()
        for name, width in widths.items()
    }
    boxes = torch.cat([crowd(5, 7, (64, 96)), torch.tensor([[8.0, 8, 72, 60]])])
    targets = [
        {"boxes": boxes, "labels": torch.tensor([1, 3, 2, 1, 3, 2])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    return outputs, anchors, counts, targets


def slow_losses(
    outputs: dict[str, Tensor], anchors: Tensor, counts: list[int], targets: list[dict[str, Tensor]]
) -> dict[str, Tensor]:
    """One location after the other, one number after the other."""
    focal = giou = bce = torch.zeros((), dtype=torch.float64)
    positives, weight = 0, 0.0
    for b, target in enumerate(targets):
        boxes = target["boxes"].tolist()
        matched = slow_match(anchors.tolist(), counts, boxes)
        for n, anchor in enumerate(anchors.tolist()):
            for k in range(CLASSES):
                p = torch.sigmoid(outputs["cls_logits"][b, n, k])
                if matched[n] >= 0 and target["labels"][matched[n]] == k + 1:
                    focal = focal - 0.25 * (1 - p) ** 2 * torch.log(p)
                else:
                    focal = focal - 0.75 * p**2 * torch.log(1 - p)
            if matched[n] < 0:
                continue
            x1, y1, x2, y2 = boxes[matched[n]]
            width, height = anchor[2] - anchor[0], anchor[3] - anchor[1]
            x, y = anchor[0] + width / 2, anchor[1] + height / 2
            sides = (x - x1, x2 - x), (y - y1, y2 - y)
            center = math.sqrt(math.prod(min(pair) / max(pair) for pair in sides))
            dx, dy, dw, dh = outputs["bbox_regression"][b, n]
            cx, cy, w, h = (
                x + 0.1 * dx * width,
                y + 0.1 * dy * height,
                width * torch.exp(0.2 * dw),
                height * torch.exp(0.2 * dh),
            )
            left, top, right, bottom = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
            shared = (right.clamp(max=x2) - left.clamp(min=x1)).clamp(min=0) * (
                bottom.clamp(max=y2) - top.clamp(min=y1)
            ).clamp(min=0)
            union = w * h + (x2 - x1) * (y2 - y1) - shared
            hull = (right.clamp(min=x2) - left.clamp(max=x1)) * (
                bottom.clamp(min=y2) - top.clamp(max=y1)
            )
            giou = giou + center * (1 - shared / union + (hull - union) / hull)
            c = torch.sigmoid(outputs["bbox_ctrness"][b, n, 0])
            bce = bce - center * torch.log(c) - (1 - center) * torch.log(1 - c)
            positives, weight = positives + 1, weight + center
    assert positives > 10
    return {
        "classification": focal / positives,
        "bbox_regression": 2 * giou / max(weight, 1),
        "bbox_ctrness": bce / positives,
    }


def normalised_losses(
    outputs: dict[str, Tensor], anchors: Tensor, counts: list[int], targets: list[dict[str, Tensor]]
) -> dict[str, Tensor]:
    """As the detector divides them."""
    sums, numbers = atss_losses(outputs, anchors, counts, targets)
    return divided(sums, batch_divisors([numbers]))


def test_losses_and_gradients_equal_loops(batch: tuple):
    outputs = batch[0]
    ours, theirs = normalised_losses(*batch), slow_losses(*batch)
    assert list(ours) == list(theirs)
    for name, loss in theirs.items():
        assert ours[name].item() == pytest.approx(loss.item(), rel=1e-5), name
    gradients = [
        torch.autograd.grad(sum(losses.values()), list(outputs.values()))
        for losses in (ours, theirs)
    ]
    for name, mine, yours in zip(outputs, *gradients, strict=True):
        assert torch.allclose(mine, yours, rtol=1e-4, atol=1e-7), name
        assert yours.abs().max() > 1e-3, name


def test_without_boxes_only_the_background_is_learned(batch: tuple):
    outputs, anchors, counts, targets = batch
    losses = normalised_losses(outputs, anchors, counts, [targets[1]] * 2)
    assert losses["classification"] > 0
    assert (losses["bbox_regression"], losses["bbox_ctrness"]) == (0, 0)


def test_gradients_of_the_smooth_parts():
    anchors = grid(64, 96)[0][40:46].double()
    boxes = anchors + torch.tensor([5.0, -9, 14, 8], dtype=torch.float64)
    generator = torch.Generator().manual_seed(4)
    deltas = torch.randn(2, 6, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: giou_loss(decode_boxes(x, anchors), boxes), deltas)
    logits = torch.randn(
        2, 6, CLASSES, dtype=torch.float64, generator=generator, requires_grad=True
    )
    labels = torch.tensor([[0, 2, -1, 1, 1, -1], [-1] * 6])
    # Computed in fp32: longer steps, so that rounding does not hide the differences.
    assert torch.autograd.gradcheck(
        lambda x: focal_loss(x, labels), logits, eps=1e-2, atol=2e-4, rtol=0
    )


@pytest.fixture
def detector() -> Detector:
    torch.manual_seed(0)
    return build_detector(
        Layout.parse("C1-C1-C1-C1@16"), DetectorSpec(name="atss", channels=32), CLASSES
    ).eval()


def slow_detections(
    outputs: dict[str, Tensor], anchors: Tensor, counts: list[int], per_level: int, most: int
) -> list[tuple]:
    """(score, label, box) of one image, the best first."""
    candidates, start = [], 0
    for count in counts:
        of_level = []
        for n in range(start, start + count):
            center = torch.sigmoid(outputs["bbox_ctrness"][n, 0]).item()
            for k in range(CLASSES):
                p = torch.sigmoid(outputs["cls_logits"][n, k]).item()
                if p > 0.05 and math.sqrt(p * center) > 0.05:
                    of_level.append((math.sqrt(p * center), k + 1, n))
        candidates += sorted(of_level, reverse=True)[:per_level]
        start += count
    boxes = decode_boxes(outputs["bbox_regression"], anchors).tolist()
    height, width = SIZE
    kept: list[tuple] = []
    for score, label, n in sorted(candidates, reverse=True):
        x1, y1, x2, y2 = boxes[n]
        box = (
            min(max(x1, 0), width),
            min(max(y1, 0), height),
            min(max(x2, 0), width),
            min(max(y2, 0), height),
        )
        if all(label != other or overlap(box, there) <= 0.6 for _, other, there in kept):
            kept.append((score, label, box))
    return kept[:most]


def test_detections_equal_loops(detector: Detector):
    anchors, counts = grid(*SIZE)
    generator = torch.Generator().manual_seed(3)
    outputs = {
        "cls_logits": torch.randn(1, len(anchors), CLASSES, generator=generator) * 2 - 4,
        "bbox_regression": torch.randn(1, len(anchors), 4, generator=generator) * 0.3,
        "bbox_ctrness": torch.randn(1, len(anchors), 1, generator=generator) * 2,
    }
    detector.topk_candidates, detector.detections_per_img = 40, 60
    levels = {name: list(output.split(counts, dim=1)) for name, output in outputs.items()}
    (found,) = detector.postprocess_detections(levels, [list(anchors.split(counts))], [SIZE])
    expected = slow_detections(
        {name: output[0] for name, output in outputs.items()}, anchors, counts, 40, 60
    )
    assert len(expected) == 60
    assert found["scores"].tolist() == pytest.approx([score for score, _, _ in expected], abs=1e-6)
    assert found["labels"].tolist() == [label for _, label, _ in expected]
    assert torch.allclose(found["boxes"], torch.tensor([box for _, _, box in expected]), atol=1e-3)


def test_published_thresholds_and_the_first_scores(detector: Detector):
    assert (detector.score_thresh, detector.nms_thresh, detector.topk_candidates) == (
        0.05,
        0.6,
        1000,
    )
    assert detector.detections_per_img == 100
    # At the start every class has 0.01, the prior of the focal loss: nothing is a candidate,
    # whatever the centerness.
    with torch.no_grad():
        (found,) = detector([torch.rand(3, *SIZE)])
    assert len(found["scores"]) == 0


def test_deltas_have_both_signs_unlike_distances(detector: Detector):
    with torch.no_grad():
        outputs = detector.head(list(detector.backbone(torch.rand(1, 3, *SIZE)).values()))
    assert outputs["bbox_regression"].min() < 0 < outputs["bbox_regression"].max()
