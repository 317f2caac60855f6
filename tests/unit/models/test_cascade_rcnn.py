"""Cascade Mask R-CNN's stages against slow and obvious versions: who is sampled, what it is to
become, what is handed on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms, generalized_box_iou

from nas.config.sections import DetectorSpec
from nas.data.dataset import Target
from nas.models.detectors import build_detector
from nas.models.detectors.cascade_heads import BOX_WEIGHTS, IOUS, LOSS_WEIGHTS, CascadeHeads
from nas.models.detectors.cascade_stage import CascadeStage, Sampled
from search_spaces.layout import Layout

SPEC = DetectorSpec(name="cascade_mask_rcnn", channels=32, hidden=16, regions=32)
LAYOUT = Layout.parse("C1-C1-C1-C1@16")
CLASSES, SIZE = 3, (96, 128)


def stage(
    iou: float = 0.5, weights: Sequence[float] = BOX_WEIGHTS[0], regions: int = 32
) -> CascadeStage:
    return CascadeStage(
        32,
        CLASSES,
        hidden=16,
        regions=regions,
        iou=iou,
        box_weights=tuple(weights),
        masks=False,
    )


def random_boxes(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * torch.tensor([100.0, 70])
    return torch.cat([corner, corner + 2 + torch.rand(count, 2, generator=generator) * 50], dim=1)


def target(boxes: Tensor | Sequence[Sequence[float]], seed: int = 0) -> Target:
    corners = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    labels = torch.randint(
        1, CLASSES + 1, (len(corners),), generator=torch.Generator().manual_seed(seed)
    )
    return {"boxes": corners, "labels": labels}


def iou_of(a: Sequence[float], b: Sequence[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


TARGETS = {
    "some": target(random_boxes(7, 1)),
    "none": target([]),
    "one": target([[10, 10, 60, 50]]),
    "larger than the image": target([[-20, -20, 200, 200], [3, 3, 90, 90]]),
    "500": target(random_boxes(500, 2)),
}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("iou", IOUS)
def test_every_sampled_box_has_the_object_that_it_overlaps_most(iou: float, name: str):
    torch.manual_seed(0)
    truth, proposals = TARGETS[name], random_boxes(150, 3)
    jitter = torch.randn(len(truth["boxes"]), 4) * 2
    proposals = torch.cat([proposals, truth["boxes"] + jitter])[:200]
    sampled = stage(iou).sample([proposals], [truth])
    boxes, objects = sampled.boxes[0].tolist(), truth["boxes"].tolist()
    candidates = proposals.tolist() + objects

    overlaps = {
        tuple(box): max(
            ((iou_of(box, other), -place) for place, other in enumerate(objects)), default=(0.0, 0)
        )
        for box in candidates
    }
    labels = truth["labels"].tolist()
    for box, label, index, wanted in zip(
        boxes,
        sampled.labels[0].tolist(),
        sampled.objects[0].tolist(),
        sampled.wanted[0].tolist(),
        strict=True,
    ):
        overlap, place = overlaps[tuple(box)]
        if overlap >= iou + 1e-5:
            assert (label, wanted) == (labels[-place], objects[-place])
            assert index == -place
        elif overlap < iou - 1e-5:
            assert label == 0
    positives = sum(overlap >= iou for overlap, _ in overlaps.values())
    assert sampled.positives == [min(8, positives)]
    assert len(boxes) == min(32, sampled.positives[0] + len(candidates) - positives)
    assert (sampled.labels[0] > 0).tolist() == [True] * sampled.positives[0] + [False] * (
        len(boxes) - sampled.positives[0]
    )
    places = [candidates.index(box) for box in boxes]
    assert len(set(places)) == len(places)
    assert sampled.proposed[0].tolist() == [place < len(proposals) for place in places]


@pytest.mark.parametrize("weights", BOX_WEIGHTS)
def test_boxes_are_moved_by_the_offsets_of_their_class(weights: tuple[float, ...]):
    generator = torch.Generator().manual_seed(0)
    boxes, offsets = random_boxes(20, 4), torch.randn(20, 4 * (1 + CLASSES), generator=generator)
    offsets[:, :4] = 0  # of the background
    classes = torch.randint(0, 1 + CLASSES, (20,), generator=generator)
    found = stage(weights=weights).moved(boxes, offsets, classes)
    for box, row, label, moved in zip(
        boxes.tolist(), offsets.tolist(), classes.tolist(), found.tolist(), strict=True
    ):
        dx, dy, dw, dh = (
            value / weight
            for value, weight in zip(row[4 * label : 4 * label + 4], weights, strict=True)
        )
        width, height = box[2] - box[0], box[3] - box[1]
        x, y = box[0] + width / 2 + dx * width, box[1] + height / 2 + dy * height
        width, height = width * math.exp(dw), height * math.exp(dh)
        assert moved == pytest.approx(
            [x - width / 2, y - height / 2, x + width / 2, y + height / 2], rel=1e-4, abs=1e-3
        )


def test_refined_boxes_take_their_label_or_the_likeliest_class():
    logits = torch.tensor([[9.0, 1, 2, 0], [0, 3, 1, 1], [5, 1, 0, 8]])
    offsets = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
    boxes, shapes = [random_boxes(2, 5), random_boxes(1, 6)], [SIZE, (40, 50)]
    given, used = torch.tensor([0, 2, 0]), torch.tensor([2, 2, 3])
    found = stage().refined(boxes, logits, offsets, shapes, given)
    expected = stage().moved(torch.cat(boxes), offsets, used)
    assert [len(part) for part in found] == [2, 1]
    limits = torch.tensor([[128.0, 96]] * 2 + [[50.0, 40]]).repeat(1, 2)
    assert torch.equal(torch.cat(found), torch.minimum(expected.clamp(min=0), limits))
    unlabelled = stage().refined(boxes, logits, offsets, shapes)
    likeliest = stage().moved(torch.cat(boxes), offsets, torch.tensor([2, 1, 3]))
    assert torch.equal(torch.cat(unlabelled), torch.minimum(likeliest.clamp(min=0), limits))


@pytest.mark.parametrize("name", TARGETS)
def test_box_losses_are_those_of_a_loop(name: str):
    torch.manual_seed(0)
    part = stage(0.5, BOX_WEIGHTS[1], regions=64)
    truths = [TARGETS[name], TARGETS["some"]]
    sampled = part.sample(
        [torch.cat([random_boxes(60, 7), t["boxes"] + 1])[:200] for t in truths], truths
    )
    count = sum(map(len, sampled.boxes))
    logits, offsets = (
        torch.randn(count, 1 + CLASSES, requires_grad=True),
        torch.randn(count, 16, requires_grad=True),
    )
    found = part.box_losses(logits, offsets, sampled)
    moved = part.moved(torch.cat(sampled.boxes), offsets, torch.cat(sampled.labels))
    sizes = [len(labels) for labels in sampled.labels for _ in labels]  # of each region's image
    classifier = box_reg = 0.0
    for row, label, box, wanted, size in zip(
        logits,
        torch.cat(sampled.labels).tolist(),
        moved,
        torch.cat(sampled.wanted),
        sizes,
        strict=True,
    ):
        classifier -= row.log_softmax(dim=0)[label].item() / size
        if label:
            box_reg += 10 * (1 - generalized_box_iou(box[None], wanted[None]).item()) / size
    assert found["classifier"].item() == pytest.approx(classifier, rel=1e-5)
    assert found["box_reg"].item() == pytest.approx(box_reg, rel=1e-4)
    (found["classifier"] + found["box_reg"]).backward()
    assert offsets.grad.isfinite().all()
    assert not offsets.grad[:, :4].any()


def test_the_losses_gradients():
    part = stage()
    boxes, labels = random_boxes(4, 8).double(), torch.tensor([2, 1, 0, 0])
    sampled = Sampled([boxes], [labels], [boxes + 3], [labels], [2], [labels == 0])
    logits = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    offsets = torch.randn(4, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda *outputs: sum(part.box_losses(*outputs, sampled).values()), (logits, offsets)
    )


# --------------------------------------------------------------------------------------------------


def levels(count: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    strides = (4, 8, 16, 32, 64)
    return {
        str(i): torch.randn(count, 32, -(-SIZE[0] // s), -(-SIZE[1] // s), generator=generator)
        for i, s in enumerate(strides)
    }


def heads(*, masks: bool) -> CascadeHeads:
    torch.manual_seed(0)
    return CascadeHeads(32, CLASSES, hidden=16, regions=32, masks=masks, limits=SPEC.limits)


def test_each_stage_learns_from_what_the_one_before_made_of_its_boxes(
    monkeypatch: pytest.MonkeyPatch,
):
    network = heads(masks=True).train()
    truths = [
        truth | {"masks": torch.ones(len(truth["boxes"]), *SIZE, dtype=torch.uint8)}
        for truth in (TARGETS["some"], TARGETS["none"])
    ]
    asked: list[tuple[Any, list[Tensor], Sampled]] = []
    made: list[dict[str, Tensor]] = []
    sample, box_losses = CascadeStage.sample, CascadeStage.box_losses

    def spied_sample(self: Any, proposals: list[Tensor], targets: Any) -> Sampled:
        asked.append((self, proposals, sample(self, proposals, targets)))
        return asked[-1][2]

    def spied_losses(
        self: Any, logits: Tensor, offsets: Tensor, sampled: Sampled
    ) -> dict[str, Tensor]:
        made.append(
            {"logits": logits, "offsets": offsets, **box_losses(self, logits, offsets, sampled)}
        )
        return dict(made[-1])

    monkeypatch.setattr(CascadeStage, "sample", spied_sample)
    monkeypatch.setattr(
        CascadeStage,
        "box_losses",
        lambda *args: {k: v for k, v in spied_losses(*args).items() if v.ndim == 0},
    )
    _, losses = network(
        levels(2), [random_boxes(100, 9), random_boxes(3, 10)], [SIZE, SIZE], truths
    )

    assert [each[0] for each in asked] == list(network.stages)
    assert [part.proposal_matcher.high_threshold for part in network.stages] == list(IOUS)
    assert [part.box_coder.weights for part in network.stages] == list(BOX_WEIGHTS)
    for before, after, outputs in zip(asked[:-1], asked[1:], made[:-1], strict=True):
        part, _, sampled = before
        moved = part.refined(
            sampled.boxes,
            outputs["logits"],
            outputs["offsets"],
            [SIZE] * 2,
            torch.cat(sampled.labels),
        )
        kept = [
            torch.stack(
                [box for box, proposed in zip(boxes, of_rpn.tolist(), strict=True) if proposed]
            )
            for boxes, of_rpn in zip(moved, sampled.proposed, strict=True)
        ]
        assert all(map(torch.equal, after[1], kept))
    for number, (outputs, weight) in enumerate(zip(made, LOSS_WEIGHTS, strict=True), start=1):
        for name in ("classifier", "box_reg"):
            assert torch.equal(losses[f"loss_{name}_{number}"], weight * outputs[name])
    assert sorted(losses) == sorted(
        f"loss_{name}_{i}" for name in ("classifier", "box_reg", "mask") for i in (1, 2, 3)
    )


@torch.no_grad()
def test_detections_average_scores_and_masks_and_take_the_last_boxes():
    network, features = heads(masks=True).eval(), levels(1)
    for part in network.stages:  # decided enough for scores above the threshold
        part.box_predictor.cls_score.weight.mul_(20)
        part.box_predictor.bbox_pred.weight.mul_(20)
    proposals = random_boxes(30, 11)
    (found,), _ = network(features, [proposals], [SIZE])

    boxes, scores = proposals, torch.zeros(30, 1 + CLASSES)
    for part in network.stages:
        logits, offsets = part.box_predictor(
            part.box_head(part.box_roi_pool(features, [boxes], [SIZE]))
        )
        scores += F.softmax(logits, dim=1) / 3
        last = torch.stack(
            [part.moved(boxes, offsets, torch.full((30,), label)) for label in range(1 + CLASSES)],
            dim=1,
        )
        boxes = torch.stack(
            [row[1 + int(each[1:].argmax())] for row, each in zip(last, logits, strict=True)]
        )
        boxes = torch.minimum(boxes.clamp(min=0), torch.tensor([128.0, 96, 128, 96]))
    rows = [
        (last[i, label], scores[i, label], label)
        for i in range(30)
        for label in range(1, 4)
        if scores[i, label] > 0.05
    ]
    corners = (
        torch.stack([row[0] for row in rows])
        .clamp(min=0)
        .minimum(torch.tensor([128.0, 96, 128, 96]))
    )
    values, labels = torch.stack([row[1] for row in rows]), torch.tensor([row[2] for row in rows])
    kept = batched_nms(corners, values, labels, 0.5)
    assert len(kept) >= 3
    assert torch.allclose(found["boxes"], corners[kept], atol=1e-3)
    assert torch.allclose(found["scores"], values[kept], atol=1e-5)
    assert torch.equal(found["labels"], labels[kept])

    masks = torch.zeros(len(kept), 28, 28)
    for part in network.stages:
        logits = part.mask_predictor(
            part.mask_head(part.mask_roi_pool(features, [found["boxes"]], [SIZE]))
        )
        masks += (
            torch.stack(
                [
                    row[label - 1]
                    for row, label in zip(logits.sigmoid(), found["labels"].tolist(), strict=True)
                ]
            )
            / 3
        )
    assert torch.allclose(found["masks"], masks, atol=1e-5)


@torch.no_grad()
def test_masks_in_pieces_are_those_at_once(monkeypatch: pytest.MonkeyPatch):
    network, features = heads(masks=True).eval(), levels(3)
    detections = [
        {"boxes": random_boxes(count, count), "labels": torch.arange(count) % CLASSES + 1}
        for count in (11, 0, 4)
    ]
    expected = network._masks(features, detections, [SIZE] * 3)
    assert [len(part) for part in expected] == [11, 0, 4]
    monkeypatch.setattr("nas.models.detectors.cascade_heads.MASKS_AT_ONCE", 3)
    for masks, part in zip(network._masks(features, detections, [SIZE] * 3), expected, strict=True):
        assert torch.allclose(masks, part, atol=1e-6)


def test_data_without_masks_need_no_mask_heads():
    torch.manual_seed(0)
    boxes_only = build_detector(LAYOUT, SPEC.model_copy(update={"masks": False}), CLASSES)
    assert not any("mask" in name for name, _ in boxes_only.named_parameters())
    assert (SPEC.learns_masks, boxes_only.masks) == (True, False)
    losses = boxes_only.train()([torch.rand(3, *SIZE)], [TARGETS["some"]])
    assert not any("mask" in name for name in losses)
    sum(losses.values()).backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all()
        for p in boxes_only.parameters()
        if p.requires_grad
    )
    assert set(boxes_only.eval()([torch.rand(3, *SIZE)])[0]) == {"boxes", "scores", "labels"}


@pytest.mark.parametrize("name", TARGETS)
def test_targets_without_masks_teach_none_and_break_nothing(name: str):
    torch.manual_seed(0)
    detector = build_detector(LAYOUT, SPEC, CLASSES).train()
    truths = [TARGETS[name], TARGETS["one"]]
    losses = detector([torch.rand(3, *SIZE), torch.rand(3, 64, 64)], truths)
    assert all(losses[f"loss_mask_{number}"] == 0 for number in (1, 2, 3))
    sum(losses.values()).backward()
    for parameter in (p for p in detector.parameters() if p.requires_grad):
        assert parameter.grad is not None  # or processes that train together would wait for it
        assert parameter.grad.isfinite().all()


def test_a_mask_that_is_empty_does_not_count():
    torch.manual_seed(0)
    detector = build_detector(LAYOUT, SPEC, CLASSES).train()
    for part in detector.roi_heads.stages:
        torch.nn.init.zeros_(part.mask_predictor.mask_fcn_logits.weight)
    truth = TARGETS["one"] | {"masks": torch.zeros(1, *SIZE, dtype=torch.uint8)}
    assert detector([torch.rand(3, *SIZE)], [truth])["loss_mask_1"] == 0
    truth["masks"][:, 10:50, 10:60] = 1
    assert detector([torch.rand(3, *SIZE)], [truth])["loss_mask_1"].item() == pytest.approx(
        math.log(2)
    )


def test_without_proposals_there_is_nothing_to_find():
    network = heads(masks=True).eval()
    with torch.no_grad():
        (found,), _ = network(levels(1), [torch.zeros(0, 4)], [SIZE])
    assert {name: tuple(part.shape) for name, part in found.items()} == {
        "boxes": (0, 4),
        "scores": (0,),
        "labels": (0,),
        "masks": (0, 28, 28),
    }
