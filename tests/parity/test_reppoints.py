"""The pieces of RepPoints v2's network and its detections against slow, obvious versions."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import box_iou

from nas.config.sections import DetectorSpec
from nas.models.detectors import build_detector
from nas.models.detectors.deformable_conv import DeformableConv
from nas.models.detectors.reppoints import _detect
from nas.models.detectors.reppoints_corners import largest_along, refine_corners
from nas.models.detectors.reppoints_head import RepPointsHead
from nas.models.detectors.reppoints_points import CornerTransform, MomentTransform, kernel_grid
from nas.profiling.flop_counter import _FVCORE, SAMPLING
from nas.profiling.memory.tracer import TensorSpec, contiguous, trace
from search_spaces.layout import Layout


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_moment_transform_is_mean_and_deviation():
    transform = MomentTransform()
    with torch.no_grad():
        transform.log_scale.copy_(torch.tensor([0.3, -0.2]))
    points = noise(2, 5, 18)
    found = transform(points)
    for place in ((0, 0), (1, 4)):
        ys, xs = points[place][0::2].tolist(), points[place][1::2].tolist()
        halves = statistics.stdev(xs) * math.exp(0.3), statistics.stdev(ys) * math.exp(-0.2)
        center = statistics.mean(xs), statistics.mean(ys)
        wanted = [
            center[0] - halves[0],
            center[1] - halves[1],
            center[0] + halves[0],
            center[1] + halves[1],
        ]
        assert found[place].tolist() == pytest.approx(wanted, abs=1e-5)


def test_moment_transform_is_smooth_and_its_scales_learn_slowly():
    transform = MomentTransform().double()
    points = noise(3, 18).double().requires_grad_()
    assert torch.autograd.gradcheck(transform, points)
    transform(points)[:, 2].sum().backward()
    deviation = points.detach()[:, 1::2].std(dim=1).sum()
    assert transform.log_scale.grad is not None
    assert transform.log_scale.grad.tolist() == pytest.approx([0.01 * deviation.item(), 0])
    still = torch.zeros(1, 18, requires_grad=True)
    MomentTransform()(still).sum().backward()
    assert still.grad is not None
    assert still.grad.isfinite().all()


def test_corner_transform_is_what_two_points_span():
    points = noise(7, 18)
    for box, (y1, x1, y2, x2) in zip(
        CornerTransform()(points).tolist(), points[:, :4].tolist(), strict=True
    ):
        assert box == [min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)]


@pytest.mark.parametrize("behind", [True, False])
@pytest.mark.parametrize("dim", [2, 3])
def test_largest_along(dim: int, behind: bool):
    x = noise(2, 3, 5, 4)
    found, rows = largest_along(x, dim, behind=behind).transpose(dim, 0), x.transpose(dim, 0)
    for place in range(len(rows)):
        seen = rows[place:] if behind else rows[: place + 1]
        assert torch.equal(found[place], seen.amax(dim=0))


def test_deformable_convolution_samples_where_it_is_told():
    layer, x = DeformableConv(6, 4, 3), noise(2, 6, 7, 8)
    plain = F.conv2d(x, layer.weight, padding=1)
    assert torch.allclose(layer(x, torch.zeros(2, 18, 7, 8)), plain, atol=1e-5)
    # Points at the cells of the kernel, moved by one row and two columns.
    moved = kernel_grid() + torch.tensor([1.0, 2.0]).repeat(9).view(1, 18, 1, 1)
    offsets = (moved - kernel_grid()).expand(2, 18, 7, 8)
    assert torch.allclose(layer(x, offsets)[..., :5, :5], plain[..., 1:6, 2:7], atol=1e-5)
    point = torch.zeros(1, 18, 7, 8)
    point[0, :, 3, 3] = (
        torch.tensor([0.5, -1.25]).repeat(9).view(1, 18, 1, 1) - kernel_grid()
    ).flatten()
    sampled = (x[0, :, 3] + x[0, :, 4]) / 2
    sampled = 0.25 * sampled[:, 1] + 0.75 * sampled[:, 2]  # at row 3.5, column 1.75
    wanted = layer.weight.sum(dim=(2, 3)) @ sampled
    assert torch.allclose(layer(x[:1], point)[0, :, 3, 3], wanted, atol=1e-5)


def test_deformable_convolutions_are_counted():
    layer = DeformableConv(6, 4, 3).to("meta")
    with FlopCounterMode(display=False, custom_mapping=_FVCORE) as counted:
        layer(torch.empty(2, 6, 7, 8, device="meta"), torch.empty(2, 18, 7, 8, device="meta"))
    positions = 2 * 7 * 8
    assert counted.get_total_flops() == 2 * positions * 9 * 6 * (4 + SAMPLING)


def test_memory_of_a_deformable_convolution_on_cuda():
    """Columns of 2.25 MiB and three outputs of 0.5 MiB in the forward pass; see
    `_DeformableConvolution`.
    """

    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = DeformableConv(8, 16, 3)

        def forward(self, x: Tensor, offsets: Tensor) -> Tensor:
            return self.layer(x, offsets)

    shapes = [(8, 8, 32, 32), (8, 18, 32, 32)]
    tape = trace(
        Layer,
        [TensorSpec(s, contiguous(s)) for s in shapes],
        checkpointing="none",
        cuda=True,
        autocast=False,
    )
    large = [size for _, size in tape.forward if size > 1000]
    assert sorted(large) == [2**19] * 3 + [9 * 8 * 8 * 32 * 32 * 4]
    columns = [size for _, size in tape.backward if size == 9 * 8 * 8 * 32 * 32 * 4]
    assert len(columns) == 2


def test_head_samples_at_its_initial_points():
    """With weights that make every step after the samples an identity, the refined points are what
    lies at the initial ones.
    """
    torch.manual_seed(0)
    head = RepPointsHead(32, 2).eval()
    shift = torch.tensor([2.0, -1.0])  # y, x
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
        head.initial_points.bias.copy_(shift.repeat(9))
        head.refined.weight[0, -1] = 1 / 9  # the last corner output, over all points
        head.refined_points.weight[0, 0] = 1
    height, width = 6, 8
    corners = torch.zeros(1, 6, height, width)
    corners[0, -1, 4, 2] = 5  # seen from two rows above, one column to the right
    head.verification.forward = lambda x: (
        torch.zeros_like(x),
        corners,
        torch.zeros(1, 2, height, width),
    )
    outputs = head([torch.zeros(1, 32, height, width)])
    moved = outputs["refined"] - outputs["initial"]
    assert torch.equal(outputs["initial"][0], shift.repeat(height * width, 9))
    assert moved[0, :, 0].nonzero().tolist() == [[2 * width + 3]]
    assert moved[0, 2 * width + 3, 0].item() == pytest.approx(5)


def test_gradient_through_the_samples_is_a_tenth():
    torch.manual_seed(0)
    head, level = RepPointsHead(32, 2), noise(1, 32, 5, 5)

    def gradient() -> Tensor:
        head.zero_grad()
        head([level])["logits"].sum().backward()
        assert head.initial_points.weight.grad is not None
        return head.initial_points.weight.grad.clone()

    slowed = gradient()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nas.models.detectors.reppoints_head.GRADIENT_MULTIPLIER", 1.0)
        assert torch.allclose(10 * slowed, gradient(), rtol=1e-3, atol=1e-5)


def brute_corner(x: float, y: float, scores: Tensor, offsets: Tensor, stride: int) -> list[float]:
    height, width = scores.shape
    left = min(max(math.floor(x / stride), 0), width - 2)
    top = min(max(math.floor(y / stride), 0), height - 2)
    around = [(scores[top + i, left + j].item(), top + i, left + j) for i in (0, 1) for j in (0, 1)]
    _, row, column = max(around)
    return [
        (column + offsets[0, row, column].item()) * stride,
        (row + offsets[1, row, column].item()) * stride,
    ]


def test_refine_corners():
    scores, offsets, stride = noise(2, 5, 9), 0.4 * noise(4, 5, 9, seed=1), 8
    corner = torch.rand(200, 2, generator=torch.Generator().manual_seed(2)) * torch.tensor(
        [72.0, 40.0]
    )
    boxes = torch.cat([corner, (corner + 12 * noise(200, 2, seed=3).abs()).clamp(max=72)], dim=1)
    boxes[0] = torch.tensor([0.0, 0, 72, 40])
    found = refine_corners(boxes, scores, offsets, stride)
    kept = 0
    for before, after in zip(boxes.tolist(), found.tolist(), strict=True):
        first = brute_corner(*before[:2], scores[0], offsets[:2], stride)
        second = brute_corner(*before[2:], scores[1], offsets[2:], stride)
        is_box = first[0] < second[0] and first[1] < second[1]
        kept += not is_box
        assert after == pytest.approx([*first, *second] if is_box else before, abs=1e-4)
    assert 0 < kept < 200
    assert refine_corners(boxes[:0], scores, offsets, stride).shape == (0, 4)


def test_detections_of_an_image():
    levels = [(8, 10, 8), (4, 5, 16), (2, 3, 32), (1, 2, 64), (1, 1, 128)]
    counts = [h * w for h, w, _ in levels]
    total, size = sum(counts), (60, 78)
    corner = torch.rand(total, 2, generator=torch.Generator().manual_seed(4)) * 60 - 5
    boxes = torch.cat(
        [
            corner,
            corner + 20 + 30 * torch.rand(total, 2, generator=torch.Generator().manual_seed(5)),
        ],
        dim=1,
    )
    scores, corners = (0.6 * noise(total, 3, seed=6) - 2).sigmoid(), noise(total, 6, seed=7)
    limits = DetectorSpec(name="reppoints_v2").limits
    found = _detect(boxes, scores, corners, size, levels, limits)

    maps = [
        m.t().reshape(6, h, w) for m, (h, w, _) in zip(corners.split(counts), levels, strict=True)
    ]
    limits = torch.tensor([78.0, 60, 78, 60])
    candidates, place = [], 0
    for number, count in enumerate(counts):
        for box, chances in zip(
            boxes[place : place + count], scores[place : place + count], strict=True
        ):
            box = box.clamp(min=0).minimum(limits)
            if number:
                level = 0 if number < 3 else 1
                box = refine_corners(box[None], maps[level][:2], maps[level][2:], levels[level][2])[
                    0
                ]
                box = box.clamp(min=0).minimum(limits)
            candidates += [
                (chance, label + 1, box)
                for label, chance in enumerate(chances.tolist())
                if chance > 0.05
            ]
        place += count
    kept: list[tuple[float, int, Tensor]] = []
    for chance, label, box in sorted(candidates, key=lambda each: -each[0]):
        rivals = [other for _, same, other in kept if same == label]
        if all(box_iou(box[None], other[None]).item() <= 0.6 for other in rivals):
            kept.append((chance, label, box))
    assert len(found["labels"]) == min(len(kept), 100) > 20
    assert found["labels"].tolist() == [label for _, label, _ in kept][:100]
    assert found["scores"].tolist() == pytest.approx([chance for chance, _, _ in kept][:100])
    assert torch.allclose(found["boxes"], torch.stack([box for _, _, box in kept][:100]), atol=1e-4)


def test_every_parameter_gets_a_gradient_with_corners_on_a_plain_pyramid():
    torch.manual_seed(0)
    spec = DetectorSpec(name="reppoints_v2", channels=32, neck="fpn", box_transform="corners")
    detector = build_detector(Layout.parse("C1-C1-T1-T1@16"), spec, num_classes=3).train()
    boxes = torch.tensor([[5.0, 5, 25, 20], [20, 30, 90, 95], [0, 0, 120, 120]])
    targets = [
        {"boxes": boxes, "labels": torch.tensor([1, 3, 2])},
        {"boxes": boxes[:0], "labels": torch.zeros(0).long()},
    ]
    sum(detector([torch.rand(3, 96, 128), torch.rand(3, 128, 64)], targets).values()).backward()
    for name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_the_neck_is_the_published_one_unless_asked_otherwise():
    assert DetectorSpec(name="reppoints_v2").neck == "bifpn"
    assert DetectorSpec(name="reppoints_v2", neck="fpn").neck == "fpn"
    assert DetectorSpec(name="fcos").neck == "fpn"
    assert (
        DetectorSpec.model_validate(
            DetectorSpec(name="reppoints_v2", neck="dsod").model_dump()
        ).neck
        == "dsod"
    )
