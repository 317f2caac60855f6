"""Output calibration: biases at the optimum of their loss, against slow references."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nas.config.sections import DetectorSpec
from nas.data.dataset import Batch
from nas.models.detectors import build_detector
from nas.models.detectors.output_calibration import TrainingSample, focal_bias, softmax_bias
from nas.models.detectors.reppoints_calibration import grid_over
from nas.models.detectors.reppoints_points import TRANSFORMS
from search_spaces.layout import Layout

SPECS = [
    DetectorSpec(name="fcos", channels=32),
    DetectorSpec(name="faster_rcnn", channels=32, hidden=64, regions=64),
    DetectorSpec(name="atss", channels=32),
    DetectorSpec(name="reppoints_v2", channels=32),
    DetectorSpec(name="reppoints_v2", channels=32, box_transform="corners"),
    DetectorSpec(name="cascade_mask_rcnn", channels=32, hidden=64, regions=64, masks=False),
    DetectorSpec(name="sparse_rcnn", channels=32, proposals=20),
]
LAYOUT = Layout.parse("C1-C1-T1-T1@16+norm=gn")
CLASSES = 3


def sample(images: int = 6, size: tuple[int, int] = (96, 130)) -> TrainingSample:
    """Images with boxes of about 25 x 15 pixels, of classes 1 and 2."""
    generator = torch.Generator().manual_seed(3)
    targets, pixels = [], []
    for _ in range(images):
        corner = torch.rand(4, 2, generator=generator) * torch.tensor([100.0, 75.0])
        side = torch.tensor([25.0, 15.0]) * (0.8 + 0.4 * torch.rand(4, 1, generator=generator))
        labels = torch.tensor([1, 1, 1, 2])
        targets.append({"boxes": torch.cat([corner, corner + side], dim=1), "labels": labels})
        pixels.append(torch.rand(3, *size, generator=generator))
    return TrainingSample(targets, [size] * images, [Batch(pixels, targets)])


@pytest.mark.parametrize("share", [1e-5, 1e-3, 0.02, 0.2, 0.5])
@pytest.mark.parametrize("weight", [1.0, 0.2])
def test_the_focal_bias_is_the_least_of_a_fine_grid(share: float, weight: float):
    p = torch.linspace(-12, 12, 240_001, dtype=torch.float64).sigmoid()
    hit = share * 0.25 * (1 - p) ** 2 * -p.log()
    miss = (1 - share) * 0.75 * weight * p**2 * -(1 - p).log()
    expected = torch.logit(p[(hit + miss).argmin()]).item()
    assert focal_bias(torch.tensor([share]), weight).item() == pytest.approx(expected, abs=1e-3)


def test_for_rare_classes_the_focal_bias_has_a_closed_form():
    found = focal_bias(torch.tensor([1e-6])).sigmoid().item()
    assert found == pytest.approx((1e-6 / 9) ** (1 / 3), rel=0.05)


def test_the_softmax_bias_gives_the_shares():
    counts = torch.tensor([89.0, 9.0, 0.0])
    assert torch.allclose(softmax_bias(counts).softmax(0), torch.tensor([90, 10, 1]) / 101)


@pytest.fixture(params=SPECS, ids=lambda spec: f"{spec.name}-{spec.box_transform}")
def spec(request: pytest.FixtureRequest) -> DetectorSpec:
    return request.param


def losses(detector: torch.nn.Module, batch: Batch) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return detector(batch.images, batch.targets)


def test_only_outputs_change_and_the_first_loss_falls(spec: DetectorSpec):
    torch.manual_seed(0)
    detector = build_detector(LAYOUT, spec, CLASSES).train()
    data = sample()
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    with torch.no_grad():
        first = sum(losses(detector, data.batches[0]).values())
    found = detector.calibrate_outputs(data)
    assert found
    changed = {
        name
        for name, now in detector.state_dict().items()
        if not torch.equal(now, before[name])
        and ".running_" not in name  # put back by the caller
        and "num_batches" not in name
    }
    biases = {
        name
        for name, module in detector.named_modules()
        if any(module is predictor for predictor in detector.predictors())
    }
    allowed = {f"{name}.bias" for name in biases} | {
        "head.regression_head.scales",
        "head.proposal_boxes",
    }
    assert changed
    assert changed <= allowed
    with torch.no_grad():
        assert sum(losses(detector, data.batches[0]).values()) < 0.9 * first


def test_without_an_object_nothing_is_set(spec: DetectorSpec):
    torch.manual_seed(0)
    detector = build_detector(LAYOUT, spec, CLASSES).train()
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    data = TrainingSample(
        [empty] * 2, [(64, 64)] * 2, [Batch([torch.rand(3, 64, 64)] * 2, [empty] * 2)]
    )
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    assert detector.calibrate_outputs(data) == {}
    assert all(torch.equal(now, before[name]) for name, now in detector.state_dict().items())


def test_fcos_says_the_mean_box_of_its_own_positives():
    torch.manual_seed(0)
    detector = build_detector(LAYOUT, SPECS[0], CLASSES).train()
    box = torch.tensor([[20.0, 24.0, 52.0, 40.0]])  # at stride 8, centre (36, 32)
    target = {"boxes": box, "labels": torch.tensor([2])}
    data = TrainingSample([target], [(64, 64)], [])
    found = detector.calibrate_outputs(data)
    # By hand: locations at multiples of 8 within 12 pixels of the centre and inside the box.
    positives = [
        (x, y)
        for x in range(0, 64, 8)
        for y in range(0, 64, 8)
        if max(abs(x - 36), abs(y - 32)) < 12 and 20 < x < 52 and 24 < y < 40
    ]
    assert found["positives"][0] == len(positives)
    locations = 64 + 16 + 4 + 1 + 1
    assert found["class_shares"] == pytest.approx([0, len(positives) / locations, 0])
    left = [math.log((x - 20) / 8) for x, _ in positives]
    regression = detector.head.regression_head
    assert regression.bbox_reg.bias[0].item() == pytest.approx(
        math.exp(sum(left) / len(left)), rel=1e-5
    )


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_grid_of_points_has_the_wanted_box(name: str):
    half = torch.tensor([1.7, 0.6])
    box = TRANSFORMS[name]()(grid_over(half, TRANSFORMS[name]()))
    assert torch.allclose(box, torch.cat([-half, half]), atol=1e-5)
