"""Sparse R-CNN's matcher, losses, box coder and head against slow, obvious versions and PyTorch's
own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou, roi_align

from nas.config.sections import DetectorSpec
from nas.models.detectors import build_detector
from nas.models.detectors.normalization import divided
from nas.models.detectors.sparse_rcnn import SparseRcnn, _detections
from nas.models.detectors.sparse_rcnn_head import (
    CODER,
    DynamicHead,
    DynamicInteraction,
    SelfAttention,
)
from nas.models.detectors.sparse_rcnn_loss import hungarian, in_order, matching_cost, set_losses
from nas.utils.distributed import World
from search_spaces.layout import Layout

SIZE = (120.0, 80.0)  # of the image: width, height
Target = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def boxes(*shape: int) -> Tensor:
    """Random ones, some beyond the image's border."""
    corner, side = torch.rand(*shape, 2) * 80 - 10, torch.rand(*shape, 2) * 60 + 1
    return torch.cat([corner, corner + side], dim=-1)


def target(*corners: tuple[float, ...], labels: list[int] | None = None) -> Target:
    of_class = labels if labels is not None else [1 + index % 3 for index in range(len(corners))]
    return {
        "boxes": torch.tensor(corners).float().reshape(-1, 4),
        "labels": torch.tensor(of_class, dtype=torch.int64),
    }


TARGETS = {
    "three boxes": target((5, 5, 50, 40), (30, 20, 110, 70), (60, 0, 80, 20)),
    "no boxes": target(),
    "one box": target((10, 10, 40, 40)),
    "larger than the image": target((-50, -70, 500, 300), (10, 10, 11, 11)),
    "equal costs": target(*[(10, 10, 40, 40)] * 3, labels=[2, 2, 2]),
    "more boxes than proposals": target(
        *[(x, y, x + 9, y + 7) for x in (0, 40, 80) for y in (5, 50)]
    ),
}


# Slow and obvious: one proposal, one box, plain Python.


def slow_giou(a: list[float], b: list[float]) -> float:
    def area(x1: float, y1: float, x2: float, y2: float) -> float:
        return max(0.0, x2 - x1) * max(0.0, y2 - y1)

    shared = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    union = area(*a) + area(*b) - shared
    hull = area(min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
    return shared / union - (hull - union) / hull


def slow_l1(a: list[float], b: list[float]) -> float:
    return sum(abs(x - y) / SIZE[side % 2] for side, (x, y) in enumerate(zip(a, b, strict=True)))


def slow_focal(logit: float, positive: bool) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -0.25 * (1 - p) ** 2 * math.log(p) if positive else -0.75 * p**2 * math.log(1 - p)


def slow_cost(logits: Tensor, box: Tensor, truth: Tensor, label: int) -> float:
    a, b, logit = box.tolist(), truth.tolist(), logits[label].item()
    return (
        2 * (slow_focal(logit, True) - slow_focal(logit, False))
        + 5 * slow_l1(a, b)
        + 2 * (1 - slow_giou(a, b))
    )


def slow_matches(cost: Tensor) -> tuple[float, dict[int, int]]:
    """Every way to match [P, M]: the least total, and the box of each proposal there."""
    proposals, count = cost.shape
    if proposals >= count:
        ways = [
            dict(zip(chosen, range(count), strict=True))
            for chosen in itertools.permutations(range(proposals), count)
        ]
    else:
        ways = [
            dict(enumerate(chosen)) for chosen in itertools.permutations(range(count), proposals)
        ]
    values = cost.tolist()
    return min(
        ((sum(values[p][m] for p, m in way.items()), way) for way in ways),
        key=lambda found: found[0],
    )


def slow_losses(logits: Tensor, predicted: Tensor, targets: list[Target]) -> dict[str, float]:
    focal = l1 = giou = 0.0
    for image, (of_image, t) in enumerate(zip(predicted, targets, strict=True)):
        for stage, of_stage in enumerate(of_image):
            scores = logits[image, stage]
            pairs = list(zip(t["boxes"], (t["labels"] - 1).tolist(), strict=True))
            cost = [
                [slow_cost(s, b, box, label) for box, label in pairs]
                for s, b in zip(scores, of_stage, strict=True)
            ]
            _, way = slow_matches(
                torch.tensor(cost, dtype=torch.float64).reshape(len(of_stage), len(pairs))
            )
            for proposal, classes in enumerate(scores.tolist()):
                label = pairs[way[proposal]][1] if proposal in way else None
                focal += sum(
                    slow_focal(logit, index == label) for index, logit in enumerate(classes)
                )
            l1 += sum(slow_l1(of_stage[p].tolist(), pairs[m][0].tolist()) for p, m in way.items())
            giou += sum(
                1 - slow_giou(of_stage[p].tolist(), pairs[m][0].tolist()) for p, m in way.items()
            )
    count = max(1, sum(len(t["labels"]) for t in targets))
    return {
        "classification": 2 * focal / count,
        "bbox_l1": 5 * l1 / count,
        "bbox_giou": 2 * giou / count,
    }


@pytest.mark.parametrize(
    "shape", [(5, 3), (3, 5), (4, 4), (6, 1), (1, 6), (4, 0), (2, 60)], ids=str
)
@pytest.mark.parametrize("values", ["random", "few values", "one value"])
def test_matching_is_the_best_of_all(shape: tuple[int, int], values: str):
    draws: dict[str, Callable[[], Tensor]] = {
        "random": lambda: torch.randn(2, *shape),
        "few values": lambda: torch.randint(0, 3, (2, *shape)).float(),
        "one value": lambda: torch.full((2, *shape), 0.5),
    }
    costs = [
        draws[values](),
        torch.randn(2, shape[0], 2),
    ]  # another image beside it, with another number of boxes
    found = hungarian(costs)
    assert found.shape == (2, 2, shape[0])
    for cost, of_image in zip(costs, found, strict=True):
        for matrix, index in zip(cost, of_image, strict=True):
            matched = (index >= 0).nonzero().flatten()
            assert len(matched) == len(index[matched].unique()) == min(matrix.shape)
            assert matrix[matched, index[matched]].sum().item() == pytest.approx(
                slow_matches(matrix)[0], abs=1e-5
            )


@pytest.mark.parametrize("proposals", [300, 500])
def test_five_hundred_boxes(proposals: int):
    """Nothing is below what each proposal costs in any case, and the hidden matching has no more
    than that.
    """
    hidden = torch.randperm(500)[:proposals]
    above = torch.rand(proposals, 500) + 0.01
    above[torch.arange(proposals), hidden] = 0
    assert hungarian([(torch.randn(proposals, 1) + above)[None]]).tolist() == [[hidden.tolist()]]


def test_costs_that_are_no_numbers_are_matched_last():
    cost = torch.rand(1, 4, 2)
    cost[0, 0], cost[0, 1, 1] = torch.nan, torch.inf
    [[index]] = hungarian([cost])
    assert index[0] == -1
    assert index[1] != 1


def test_in_order_matches_as_many():
    costs = [torch.empty(6, 5, 3)] * 2
    assert in_order(costs).tolist() == [[[0, 1, 2, -1, -1]] * 6] * 2
    assert in_order([torch.empty(1, 2, 3)]).tolist() == [[[0, 1]]]


@pytest.mark.parametrize("name", TARGETS)
def test_costs_equal_one_pair_at_a_time(name: str):
    t, logits, predicted = TARGETS[name], torch.randn(2, 4, 3) * 3, boxes(2, 4)
    cost = matching_cost(logits, predicted, t, torch.tensor(SIZE).repeat(2))
    assert cost.shape == (2, 4, len(t["labels"]))
    for stage, proposal, box in itertools.product(*map(range, cost.shape)):
        expected = slow_cost(
            logits[stage, proposal],
            predicted[stage, proposal],
            t["boxes"][box],
            int(t["labels"][box]) - 1,
        )
        assert cost[stage, proposal, box].item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.fixture
def network() -> SparseRcnn:
    spec = DetectorSpec(name="sparse_rcnn", channels=32, proposals=4)
    built = build_detector(Layout.parse("C1-C1-C1-C1@16"), spec, 3)
    assert isinstance(built, SparseRcnn)
    return built


def normalised_losses(
    network: SparseRcnn,
    logits: Tensor,
    predicted: Tensor,
    targets: list[Target],
    match: Callable[..., Tensor] = hungarian,
) -> dict[str, Tensor]:
    """As the detector divides them."""
    sizes = torch.tensor(SIZE).repeat(len(targets), 2)
    counts = network.loss_counts([torch.empty(0)] * len(targets), targets)
    sums = set_losses(logits, predicted, targets, sizes, match)
    return divided(sums, network.divisors([counts]))


@pytest.mark.parametrize("name", TARGETS)
def test_losses_equal_a_slow_version(name: str, network: SparseRcnn):
    targets = [TARGETS[name], TARGETS["three boxes"]] if name != "no boxes" else [TARGETS[name]] * 2
    logits, predicted = torch.randn(2, 2, 4, 3) * 2, boxes(2, 2, 4)
    found = normalised_losses(network, logits, predicted, targets)
    expected = slow_losses(logits, predicted, targets)
    assert found.keys() == expected.keys()
    for loss, value in found.items():
        assert value.item() == pytest.approx(expected[loss], rel=1e-4, abs=1e-5)


def test_giou_loss_is_torchvisions_over_matched_pairs(network: SparseRcnn):
    t, predicted = TARGETS["three boxes"], boxes(1, 1, 5)
    found = normalised_losses(network, torch.zeros(1, 1, 5, 3), predicted, [t], in_order)
    expected = 1 - generalized_box_iou(predicted[0, 0, :3], t["boxes"]).diag()
    assert found["bbox_giou"].item() == pytest.approx(2 * expected.mean().item(), rel=1e-5)


def test_gradients_of_the_losses():
    targets, sizes = (
        [TARGETS["three boxes"], TARGETS["no boxes"]],
        torch.tensor(SIZE).repeat(2, 2).double(),
    )
    targets = [{"boxes": t["boxes"].double(), "labels": t["labels"]} for t in targets]
    logits, predicted = torch.randn(2, 2, 4, 3).double(), boxes(2, 2, 4).double()
    found = hungarian(
        [matching_cost(*each) for each in zip(logits, predicted, targets, sizes, strict=True)]
    )
    # Classes are computed in fp32: longer steps, so that rounding does not hide the differences.
    in_fp32 = {"eps": 1e-2, "atol": 5e-4, "rtol": 0}
    for name, steps in (("classification", in_fp32), ("bbox_l1", {}), ("bbox_giou", {})):
        arguments = (logits.requires_grad_(), predicted.requires_grad_())
        assert torch.autograd.gradcheck(
            lambda *given, name=name: set_losses(*given, targets, sizes, lambda _: found)[name],
            arguments,
            **steps,
        )


def test_only_matched_proposals_have_a_gradient_of_their_box():
    predicted = boxes(1, 1, 5).requires_grad_()
    losses = set_losses(
        torch.zeros(1, 1, 5, 3), predicted, [TARGETS["one box"]], torch.tensor(SIZE).repeat(1, 2)
    )
    (losses["bbox_l1"] + losses["bbox_giou"]).backward()
    assert (predicted.grad.abs().sum(dim=-1) > 0).sum() == 1


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (("more boxes than proposals", "no boxes", "one box", "larger than the image"), (6, 3)),
        (("no boxes", "no boxes", "one box", "no boxes"), (0, 1)),
        (("no boxes",) * 4, (0, 0)),
    ],
    ids=["boxes of both", "one box of the second", "no boxes"],
)
def test_two_processes_with_half_a_batch_each_lose_what_one_does(
    names: tuple[str, ...],
    numbers: tuple[int, int],
    network: SparseRcnn,
    monkeypatch: pytest.MonkeyPatch,
):
    targets = [TARGETS[name] for name in names]
    logits, predicted = torch.randn(4, 2, 4, 3), boxes(4, 2, 4)

    def lost(share: slice) -> dict[str, Tensor]:
        return normalised_losses(network, logits[share], predicted[share], targets[share])

    def mean(own: Tensor) -> Tensor:
        handed.append(own.item())
        return torch.full_like(own, sum(numbers) / 2)

    handed: list[float] = []
    whole = lost(slice(0, 4))
    monkeypatch.setattr(World, "current", lambda: World(0, 2))
    monkeypatch.setattr("nas.models.detectors.normalization.all_reduce_mean", mean)
    halves = [lost(share) for share in (slice(0, 2), slice(2, 4))]
    assert handed == [numbers[0]] * 3 + [numbers[1]] * 3
    for name, loss in whole.items():
        assert sum(half[name].item() for half in halves) / 2 == pytest.approx(loss.item(), rel=1e-5)


def test_what_is_no_number_is_told_by_the_loss():
    losses = set_losses(
        torch.full((1, 1, 4, 3), torch.nan), boxes(1, 1, 4), [TARGETS["one box"]], torch.ones(1, 4)
    )
    assert losses["classification"].isnan()


def slow_decode(offsets: list[float], box: list[float]) -> list[float]:
    """Fast R-CNN's parametrisation with weights 2, 2, 1, 1; sides grow 6250-fold at the most."""
    width, height = box[2] - box[0], box[3] - box[1]
    x, y = (
        (box[0] + box[2]) / 2 + offsets[0] / 2 * width,
        (box[1] + box[3]) / 2 + offsets[1] / 2 * height,
    )
    width, height = (
        width * min(math.exp(offsets[2]), 6250),
        height * min(math.exp(offsets[3]), 6250),
    )
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def test_box_coder():
    offsets, given = torch.randn(50, 4).double() * 3, boxes(50).double()
    offsets[:3] = torch.tensor([[0, 0, 0, 0], [0, 0, 20, -20], [-5, 5, 9, 9]])
    expected = torch.tensor(
        [slow_decode(*pair) for pair in zip(offsets.tolist(), given.tolist(), strict=True)]
    )
    assert torch.allclose(CODER.decode_single(offsets, given), expected.double(), rtol=1e-5)
    smooth = offsets[3:8].clamp(-2, 2).requires_grad_(), given[3:8].requires_grad_()
    assert torch.autograd.gradcheck(CODER.decode_single, smooth)


def test_self_attention_is_pytorchs():
    ours, theirs, x = (
        SelfAttention(32),
        torch.nn.MultiheadAttention(32, 8, batch_first=True),
        torch.randn(2, 7, 32),
    )
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight), theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.load_state_dict(ours.proj.state_dict())
    expected, _ = theirs(x, x, x)
    assert torch.allclose(ours(x), expected, atol=1e-6)


def test_interaction_equals_two_convolutions_for_each_region():
    module, features, regions = DynamicInteraction(32), torch.randn(5, 32), torch.randn(5, 32, 7, 7)
    found = module(features, regions)
    for feature, region, row in zip(features, regions, found, strict=True):
        weights = module.dynamic(feature)
        first, second = weights[: 32 * 8].view(32, 8).t(), weights[32 * 8 :].view(8, 32).t()
        x = F.conv2d(region[None], first[:, :, None, None])
        x = F.relu(F.layer_norm(x.permute(0, 2, 3, 1), (8,))).permute(0, 3, 1, 2)
        x = F.conv2d(x, second[:, :, None, None]).permute(0, 2, 3, 1)
        x = F.relu(F.layer_norm(x, (32,)))
        x = module.out.bias + module.out.weight @ x.flatten()
        assert torch.allclose(row, F.relu(F.layer_norm(x, (32,))), atol=1e-4)


@pytest.fixture
def head() -> DynamicHead:
    return DynamicHead(32, num_classes=3, proposals=6)


def test_proposals_begin_with_the_whole_image(head: DynamicHead):
    seen: list[Tensor] = []

    def pool(given: Tensor) -> Tensor:
        seen.append(given)
        return torch.zeros(len(given) * 6, 32, 7, 7)

    head.refine(torch.tensor([[130.0, 100, 130, 100], [64, 70, 64, 70]]), pool)
    assert len(seen) == 6
    assert seen[0][0].tolist() == [[0, 0, 130, 100]] * 6
    assert seen[0][1].tolist() == [[0, 0, 64, 70]] * 6


def test_every_stage_pools_where_the_one_before_it_ended(head: DynamicHead):
    levels, seen = [torch.randn(2, 32, 64 // 2**i, 64 // 2**i) for i in range(4)], []
    head.pool.register_forward_hook(
        lambda _, given, regions: seen.append((torch.stack(given[1]), regions))
    )
    logits, moved = head(levels, torch.full((2, 4), 256.0))
    assert (logits.shape, moved.shape) == ((2, 6, 6, 3), (2, 6, 6, 4))
    for stage, (given, _) in enumerate(seen[1:]):
        assert torch.equal(given, moved[:, stage])
    whole = [
        torch.tensor([[0.0, 0.0, 256.0, 256.0]])
    ] * 2  # from 224 pixels on: the third of the levels
    expected = roi_align(levels[2], whole, 7, 1 / 16, 2)
    assert torch.allclose(
        seen[0][1].view(2, 6, 32, 7, 7), expected[:, None].expand(-1, 6, -1, -1, -1)
    )


def test_a_stage_learns_from_its_own_boxes(head: DynamicHead):
    _, moved = head(
        [torch.randn(1, 32, 32 // 2**i, 32 // 2**i) for i in range(4)], torch.full((1, 4), 128.0)
    )
    moved[:, 1].sum().backward()
    assert not head.stages[0].bbox_pred.weight.grad.any()
    assert not head.proposal_boxes.grad.any()
    assert head.stages[1].bbox_pred.weight.grad.abs().sum() > 0
    assert head.stages[0].ffn[0].weight.grad.abs().sum() > 0  # by way of the features


def test_detections_are_the_best_of_all_proposals_and_classes():
    logits, predicted = torch.randn(1, 90, 3), boxes(1, 90)
    predicted[0, 5] = torch.tensor([-30.0, 5, -10, 20])  # outside
    logits[0, 5] = 9
    limits = DetectorSpec(name="sparse_rcnn").limits
    [found] = _detections(logits, predicted, [(80, 120)], limits)
    ranked = sorted(
        ((logits[0, p, k].sigmoid().item(), p, k) for p in range(90) for k in range(3)),
        reverse=True,
    )[:100]
    ranked = [entry for entry in ranked if entry[1] != 5]
    assert found["scores"].tolist() == pytest.approx([score for score, _, _ in ranked])
    assert found["labels"].tolist() == [k + 1 for _, _, k in ranked]
    limit = torch.tensor([120, 80, 120, 80])
    assert torch.equal(
        found["boxes"],
        torch.stack([predicted[0, p].clamp(min=0).minimum(limit) for _, p, _ in ranked]),
    )


def test_training_without_targets_is_refused(network: SparseRcnn):
    with pytest.raises(ValueError, match="targets must be given in training"):
        network.train()([torch.rand(3, 64, 64)])


def test_predictors_start_as_published():
    network = build_detector(
        Layout.parse("C1-C1-C1-C1@16"), DetectorSpec(name="sparse_rcnn", proposals=4), 80
    )
    assert len(network.predictors()) == 12
    for predictor, outputs in zip(network.predictors(), itertools.cycle((80, 4)), strict=False):
        limit = math.sqrt(6 / (256 + outputs))  # Glorot & Bengio 2010, equation 16
        assert predictor.weight.abs().max().item() == pytest.approx(limit, rel=0.02)
        assert predictor.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.1)
        assert predictor.bias.tolist() == pytest.approx(
            [-math.log(99)] * 80 if outputs == 80 else [0] * 4
        )
