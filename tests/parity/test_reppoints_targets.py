"""What RepPoints v2 is to predict, and how it learns it, against slow, obvious versions."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor
from torchvision.ops import generalized_box_iou, sigmoid_focal_loss

from nas.models.detectors.dense_head import STRIDES
from nas.models.detectors.normalization import batch_divisors, divided
from nas.models.detectors.reppoints_loss import corner_losses, foreground_loss, reppoints_losses
from nas.models.detectors.reppoints_targets import (
    CornerTargets,
    cheapest,
    corner_targets,
    foreground_weights,
    gaussian_radius,
    initial_match,
)
from nas.utils.distributed import World

HEIGHT, WIDTH = 160, 224
LEVELS = [(-(-HEIGHT // stride), -(-WIDTH // stride), stride) for stride in STRIDES]
PLACES = [(x * s, y * s, s) for h, w, s in LEVELS for y in range(h) for x in range(w)]
POINTS = torch.tensor(PLACES, dtype=torch.float32)[:, :2]


def crowd(count: int, seed: int = 0) -> Tensor:
    """Boxes of 4 to 200 pixels, some beyond the image."""
    generator = torch.Generator().manual_seed(seed)
    sides = 4 * 50 ** torch.rand(count, 2, generator=generator)
    corner = torch.rand(count, 2, generator=generator) * torch.tensor([WIDTH, HEIGHT]) - 10
    return torch.cat([corner, corner + sides], dim=1)


BOXES = {
    "none": torch.zeros(0, 4),
    "one": torch.tensor([[20.0, 30, 70, 90]]),
    "larger than the image": torch.tensor([[-50.0, -60, 400, 500], [3, 3, 9, 9]]),
    # The second repeats the first; centres of the others lie between locations, their corners are
    # equally near to several.
    "equal costs": torch.tensor(
        [[16.0, 16, 48, 48], [16, 16, 48, 48], [20, 20, 52, 52], [52, 20, 84, 52], [28, 4, 60, 36]]
    ),
    "without extent": torch.tensor([[40.0, 40, 40, 40], [64, 8, 64, 90]]),
    "many": crowd(40),
    "500": crowd(500, seed=1),
}
every = pytest.mark.parametrize("boxes", BOXES.values(), ids=BOXES)


def nearest(x: float, y: float, stride: int) -> int:
    """The first of the nearest locations of a level."""
    here = [
        (math.dist((px, py), (x, y)), index)
        for index, (px, py, s) in enumerate(PLACES)
        if s == stride
    ]
    return min(here)[1]


@every
def test_initial_match(boxes: Tensor):
    claims: dict[int, list[tuple[float, int]]] = {}
    for index, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        width, height = max(x2 - x1, 1e-6), max(y2 - y1, 1e-6)
        stride = 2 ** math.floor((math.log2(width / 4) + math.log2(height / 4)) / 2)
        stride = min(max(stride, STRIDES[0]), STRIDES[-1])
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        there = [place for place, (_, _, s) in enumerate(PLACES) if s == stride]
        distances = [
            math.hypot((PLACES[p][0] - x) / width, (PLACES[p][1] - y) / height) for p in there
        ]
        claims.setdefault(there[distances.index(min(distances))], []).append(
            (min(distances), index)
        )
    found = initial_match(POINTS, LEVELS, boxes).tolist()
    assert found == [
        min(claims[place])[1] if place in claims else -1 for place in range(len(PLACES))
    ]


@every
def test_corner_targets(boxes: Tensor):
    found = corner_targets(POINTS, LEVELS, boxes)
    radii = gaussian_radius(boxes).tolist()
    for kind in (0, 1):
        heat, claims = [0.0] * len(PLACES), {}
        for index, box in enumerate(boxes.tolist()):
            x, y = box[2 * kind : 2 * kind + 2]
            deviation = (2 * radii[index] + 1) / 6
            for place, (px, py, _) in enumerate(PLACES):
                distance = math.dist((px, py), (x, y))
                if distance < radii[index]:
                    heat[place] = max(heat[place], math.exp(-(distance**2) / (2 * deviation**2)))
            for stride in STRIDES:
                place = nearest(x, y, stride)
                claims.setdefault(place, []).append((math.dist(PLACES[place][:2], (x, y)), index))
        for place in claims:
            heat[place] = 1.0
        assert torch.allclose(found.heat[:, kind], torch.tensor(heat), atol=1e-4)
        assert found.here[:, kind].nonzero().flatten().tolist() == sorted(claims)
        for place, (px, py, stride) in enumerate(PLACES):
            wanted = [0.0, 0.0]
            if place in claims:
                x, y = boxes[min(claims[place])[1], 2 * kind : 2 * kind + 2].tolist()
                wanted = [(x - px) / stride, (y - py) / stride]
            assert found.offsets[place, kind].tolist() == pytest.approx(wanted, abs=1e-4)


@every
def test_foreground_weights(boxes: Tensor):
    """Painted on the finest grid, the largest box first, as with a brush; coarser levels take what
    lies at their locations.
    """
    labels = torch.arange(len(boxes)) % 3
    found = foreground_weights(POINTS, boxes, labels, num_classes=3, stride=8)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    canvas = torch.zeros(
        3, 3 * HEIGHT, 3 * WIDTH
    )  # with room for what rounding up adds to coarse levels
    for index in areas.sort(descending=True, stable=True).indices.tolist():
        x1, y1, x2, y2 = (8 * math.floor(side / 8) for side in boxes[index].tolist())
        canvas[labels[index], max(y1, 0) : max(y2 + 1, 0), max(x1, 0) : max(x2 + 1, 0)] = 1 / max(
            areas[index].item(), 1
        )
    wanted = torch.stack([canvas[:, y, x] for x, y, _ in PLACES])
    assert torch.allclose(found, wanted)


def test_corners_that_move_within_the_radius_leave_an_overlap_of_70_per_cent():
    def least_overlap(box: Tensor, radius: float) -> float:
        x1, y1, x2, y2 = box.double().tolist()
        moves = [(1, 1, 1, 1), (1, 1, -1, -1), (-1, -1, 1, 1)]  # together, inwards, outwards
        moved = [
            [x1 + a * radius, y1 + b * radius, x2 + c * radius, y2 + d * radius]
            for a, b, c, d in moves
        ]
        overlaps = []
        for a1, b1, a2, b2 in moved:
            shared = max(0, min(x2, a2) - max(x1, a1)) * max(0, min(y2, b2) - max(y1, b1))
            overlaps.append(
                shared / ((x2 - x1) * (y2 - y1) + max(0, a2 - a1) * max(0, b2 - b1) - shared)
            )
        return min(overlaps)

    boxes = crowd(30)
    for box, radius in zip(boxes, gaussian_radius(boxes).tolist(), strict=True):
        assert least_overlap(box, radius) == pytest.approx(0.7, abs=1e-3)
        assert least_overlap(box, 0.99 * radius) > 0.7


def test_a_location_takes_the_cheapest_claim_and_of_equal_ones_the_first():
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(0, 12, (40,), generator=generator)
    cost = torch.randint(0, 4, (40,), generator=generator).float()
    claims = [[(cost[i].item(), i) for i in range(40) if index[i] == place] for place in range(15)]
    assert cheapest(index, cost, 15).tolist() == [
        min(claim)[1] if claim else -1 for claim in claims
    ]


def some_targets(seed: int) -> CornerTargets:
    found = [corner_targets(POINTS, LEVELS, crowd(count, seed + count)) for count in (6, 0)]
    return CornerTargets(*(torch.stack(parts) for parts in zip(*found, strict=True)))


def test_corner_losses_one_location_at_a_time():
    targets = some_targets(2)
    corners = torch.randn(2, len(POINTS), 6, generator=torch.Generator().manual_seed(3))
    heat, offsets = [0.0, 0.0], [0.0, 0.0]
    for kind in (0, 1):
        for image in range(2):
            for place in range(len(POINTS)):
                p = 1 / (1 + math.exp(-corners[image, place, kind].item()))
                if targets.here[image, place, kind]:
                    heat[kind] -= (1 - p) ** 2 * math.log(p)
                    for axis in (0, 1):
                        wanted = targets.offsets[image, place, kind, axis].item()
                        distance = abs(corners[image, place, 2 + 2 * kind + axis].item() - wanted)
                        offsets[kind] += (
                            4.5 * distance**2 if distance < 1 / 9 else distance - 1 / 18
                        )
                else:
                    easy = (1 - targets.heat[image, place, kind].item()) ** 4
                    heat[kind] -= easy * p**2 * math.log(1 - p)
    found = corner_losses(corners, targets)
    assert found[0].tolist() == pytest.approx(heat, rel=1e-4)
    assert found[1].tolist() == pytest.approx(offsets, rel=1e-4)


def test_foreground_loss_one_location_at_a_time():
    labels = torch.arange(6) % 2
    weights = torch.stack(
        [foreground_weights(POINTS, crowd(6, 4), labels, 2, 8), torch.zeros(len(POINTS), 2)]
    )
    logits = torch.randn(weights.shape, generator=torch.Generator().manual_seed(5))
    covered = [
        (p, w)
        for p, w in zip(
            logits.sigmoid().flatten().tolist(), weights.flatten().tolist(), strict=True
        )
    ]
    hits = sum(0.25 * (1 - p) ** 2 * -math.log(p) * w for p, w in covered if w)
    misses = sum(0.75 * p**2 * -math.log(1 - p) for p, w in covered if not w)
    assert foreground_loss(logits, weights).tolist() == pytest.approx([hits, misses], rel=1e-4)


def test_verification_losses_are_smooth_and_finite_where_there_is_nothing():
    targets = some_targets(6)
    rows = [*targets.here[0].any(dim=1).nonzero().flatten()[:4].tolist(), 1, 2, 3]
    few = CornerTargets(
        *(
            part[:1, rows].double() if part.is_floating_point() else part[:1, rows]
            for part in targets
        )
    )
    generator = torch.Generator().manual_seed(7)
    corners = torch.randn(
        1, len(rows), 6, dtype=torch.float64, generator=generator
    ).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: corner_losses(x, few), corners)
    logits = torch.randn(1, 5, 3, dtype=torch.float64, generator=generator).requires_grad_()
    weights = torch.rand(1, 5, 3, dtype=torch.float64, generator=generator)
    assert torch.autograd.gradcheck(lambda x: foreground_loss(x, weights * (weights > 0.5)), logits)
    nothing = CornerTargets(
        torch.zeros(1, 5, 2), torch.zeros(1, 5, 2, dtype=torch.bool), torch.zeros(1, 5, 2, 2)
    )
    extreme = torch.tensor([-200.0, 0, 200]).repeat(1, 5, 2)
    assert all(loss.isfinite().all() for loss in corner_losses(extreme, nothing))
    assert foreground_loss(extreme, torch.zeros(1, 5, 6)).isfinite().all()


def normalised_losses(
    outputs: dict[str, Tensor], boxes: tuple[Tensor, Tensor], targets: list[dict[str, Tensor]]
) -> dict[str, Tensor]:
    """As the detector divides them."""
    sums, counts = reppoints_losses(outputs, boxes, POINTS, LEVELS, targets)
    return divided(sums, batch_divisors([counts], {"foreground": 0.0}))


@pytest.mark.parametrize("counts", [(9, 0, 3), (0, 0, 0)])
def test_the_losses_of_a_batch_are_those_of_its_parts(counts: tuple[int, ...]):
    from nas.models.detectors.atss_loss import match

    generator = torch.Generator().manual_seed(8)

    def noise(*shape: int) -> Tensor:
        return torch.randn(len(counts), len(POINTS), *shape, generator=generator)

    given = [crowd(count, 9 + count) for count in counts]
    targets = [{"boxes": boxes, "labels": torch.arange(len(boxes)) % 4 + 1} for boxes in given]
    outputs = {"logits": noise(4), "corners": noise(6), "foreground": noise(4)}
    around = torch.cat([POINTS - 12, POINTS + 12], dim=1)
    boxes = around + 3 * noise(4), around + 3 * noise(4)
    found = normalised_losses(outputs, boxes, targets)

    sizes = [h * w for h, w, _ in LEVELS]
    first = [initial_match(POINTS, LEVELS, each).tolist() for each in given]
    second = [match(mine, sizes, each).tolist() for mine, each in zip(boxes[0], given, strict=True)]
    for name, predicted, matched, weight in (
        ("initial_boxes", boxes[0], first, 1),
        ("refined_boxes", boxes[1], second, 2),
    ):
        losses = [
            1 - generalized_box_iou(predicted[image, place, None], given[image][index, None]).item()
            for image, places in enumerate(matched)
            for place, index in enumerate(places)
            if index >= 0
        ]
        assert found[name].item() == pytest.approx(
            weight * sum(losses) / max(1, len(losses)), rel=1e-4
        )
    wanted = torch.zeros_like(outputs["logits"])
    for image, places in enumerate(second):
        for place, index in enumerate(places):
            if index >= 0:
                wanted[image, place, targets[image]["labels"][index] - 1] = 1
    focal = sigmoid_focal_loss(outputs["logits"], wanted, reduction="sum") / max(1, wanted.sum())
    assert found["classification"].item() == pytest.approx(focal.item(), rel=1e-4)
    each_corners = [corner_targets(POINTS, LEVELS, each) for each in given]
    corners = CornerTargets(*map(torch.stack, zip(*each_corners, strict=True)))
    heat, offsets = (
        sum(
            loss.item() / max(1, int(corners.here[..., kind].sum()))
            for kind, loss in enumerate(kinds)
        )
        / 2
        for kinds in corner_losses(outputs["corners"], corners)
    )
    assert found["corners"].item() == pytest.approx(heat / 4)
    assert found["corner_offsets"].item() == pytest.approx(offsets)
    weights = torch.stack(
        [
            foreground_weights(POINTS, target["boxes"], target["labels"] - 1, 4, 8)
            for target in targets
        ]
    )
    hits, misses = foreground_loss(outputs["foreground"], weights).tolist()
    total, covered = weights.sum().item(), int((weights > 0).sum())
    assert (0 < total < 1) == (covered > 0) == any(counts)  # less than 1, and divided by
    assert found["foreground"].item() == pytest.approx(
        0.1 * (hits / (total or 1) + misses / (covered or 1)), rel=1e-4
    )


@pytest.mark.parametrize("counts", [(9, 0, 3, 1), (0, 1, 0, 0), (0, 0, 0, 0)])
def test_two_processes_with_half_a_batch_each_lose_what_one_does(
    counts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
):
    generator = torch.Generator().manual_seed(10)
    given = [crowd(count, 11 + count) for count in counts]
    targets = [{"boxes": boxes, "labels": torch.arange(len(boxes)) % 4 + 1} for boxes in given]
    around = torch.cat([POINTS - 12, POINTS + 12], dim=1) + 3 * torch.randn(
        2, 4, len(POINTS), 4, generator=generator
    )
    outputs = {
        name: torch.randn(4, len(POINTS), width, generator=generator)
        for name, width in (("logits", 4), ("corners", 6), ("foreground", 4))
    }

    def lost(share: slice) -> dict[str, Tensor]:
        mine = {name: output[share] for name, output in outputs.items()}
        return normalised_losses(mine, (around[0, share], around[1, share]), targets[share])

    whole, shares, seen = lost(slice(0, 4)), (slice(0, 2), slice(2, 4)), []

    def noted(own: list[Tensor], number: Tensor) -> Tensor:
        own.append(number.clone())
        return number

    monkeypatch.setattr(World, "current", lambda: World(0, 2))
    for share in shares:
        own: list[Tensor] = []
        monkeypatch.setattr(
            "nas.models.detectors.normalization.all_reduce_mean", partial(noted, own)
        )
        lost(share)
        seen.append(own)
    halves = []
    for share in shares:
        means = iter([sum(both) / 2 for both in zip(*seen, strict=True)])
        monkeypatch.setattr(
            "nas.models.detectors.normalization.all_reduce_mean",
            lambda _, means=means: next(means),
        )
        halves.append(lost(share))
    assert len(seen[0]) == 6
    for name, loss in whole.items():
        assert (halves[0][name] + halves[1][name]).item() / 2 == pytest.approx(
            loss.item(), rel=1e-4
        ), name
