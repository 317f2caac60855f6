"""Every detector keeps torchvision's contract and ours."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from nas.config.choices import DetectorName
from nas.config.parsing import parse_model
from nas.config.recipe import Recipe, load_recipe
from nas.config.sections import CalibrationSpec, DetectorSpec
from nas.data.coco import CocoSplit
from nas.data.dataset import Batch, Target
from nas.evaluation.coco import evaluate
from nas.export.bundle import read_bundle, write_bundle
from nas.export.description import Trained
from nas.models.detectors import DETECTORS, build_detector
from nas.reports import CocoMetrics
from nas.training.checkpoint import save_weights
from nas.training.loop import train_epoch
from nas.training.lr_schedule import lr_at
from nas.training.optimizer import make_optimizer
from nas.training.validation_loss import SEED, ValidationLoss
from search_spaces.layout import Layout

SPECS = [
    DetectorSpec(name="fcos", channels=32),
    DetectorSpec(name="faster_rcnn", channels=32, hidden=128),
    DetectorSpec(name="faster_rcnn", channels=32, hidden=64, roi_op="pool"),
    DetectorSpec(name="atss", channels=32),
    DetectorSpec(name="reppoints_v2", channels=32),
    DetectorSpec(name="fcos", channels=32, neck="dsod"),
    DetectorSpec(name="faster_rcnn", channels=32, hidden=64, neck="dsod"),
    DetectorSpec(name="cascade_mask_rcnn", channels=32, hidden=128, regions=64),
    DetectorSpec(name="sparse_rcnn", channels=32, proposals=20),
]
EACH_ONCE = [
    spec
    for number, spec in enumerate(SPECS)
    if spec.name not in {other.name for other in SPECS[:number]}
]
LEAST_SCORE = {"sparse_rcnn": 0.0}  # of a detection, 0.05 where there is no other
LARGEST_STD = {
    "sparse_rcnn": 0.26
}  # of a predictor's weights, 0.013 where they begin small; here Xavier's, 0.24 for 4 offsets
LAYOUTS = ["C1-C1-T2-T1@16", "T1-T1-T1-T1@16", "C1-C1-C1-C1@16"]

# To overfit: two images of 64 x 64 pixels, corners and labels; sizes differ, so that several
# pyramid levels have some.
OVERFIT_SIZE = 64
SCENE = [
    [((4, 4, 24, 24), 1), ((26, 8, 60, 40), 2), ((6, 28, 22, 60), 3)],
    [((40, 2, 60, 22), 3), ((2, 18, 38, 62), 1), ((42, 30, 62, 50), 2)],
]
# Steps and learning rate, where those of `overfit` are not enough: with them four seeds give 0.96
# and more.
SLOWEST = ("cascade_mask_rcnn", "sparse_rcnn")  # half a minute each
SCHEDULES = {
    "faster_rcnn": (120, 2e-3),
    "cascade_mask_rcnn": (200, 5e-3),  # after 100 some processors have 0.88
    "sparse_rcnn": (400, 2e-3),
    "reppoints_v2": (120, 5e-3),
}


@pytest.fixture(params=SPECS, ids=lambda spec: f"{spec.name}-{spec.roi_op}-{spec.neck}")
def spec(request: pytest.FixtureRequest) -> DetectorSpec:
    torch.manual_seed(0)
    return request.param


def images(*sizes: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, *size, generator=generator) for size in sizes]


def target(*boxes: tuple[float, ...], labels: list[int] | None = None) -> Target:
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return {"boxes": corners, "labels": torch.tensor(labels or [1] * len(boxes), dtype=torch.int64)}


def masked(batch: list[Tensor], targets: list[Target]) -> list[Target]:
    """The same targets with masks, all of them rectangles; who has no use for them ignores them."""
    return [
        {**each, "masks": rectangles(each["boxes"], image.shape[1:])}
        for image, each in zip(batch, targets, strict=True)
    ]


def rectangles(boxes: Tensor, size: torch.Size) -> Tensor:
    masks = torch.zeros(len(boxes), *size, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().clamp(min=0).tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    return masks


def test_a_request_knows_the_detectors_and_which_of_them_learn_masks():
    assert set(get_args(DetectorName)) == set(DETECTORS)
    for name, kind in DETECTORS.items():
        spec = DetectorSpec.model_validate({"name": name})
        assert spec.learns_masks is kind.can_mask
        assert not spec.model_copy(update={"masks": False}).learns_masks


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_trainable_parameter_gets_a_finite_gradient(spec: DetectorSpec, layout: str):
    detector = build_detector(Layout.parse(layout), spec, num_classes=3).train()
    # Boxes of all sizes, so that every pyramid level has one to learn from.
    targets = [
        target((5, 5, 25, 20), (20, 30, 90, 95), labels=[1, 3]),
        target((0, 0, 600, 600), (10, 10, 230, 250), labels=[2, 3]),
    ]
    batch = images((96, 128), (640, 640))
    losses = detector(batch, masked(batch, targets))
    assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    for name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_output_format(spec: DetectorSpec):
    detector = build_detector(Layout.parse(LAYOUTS[0]), spec, num_classes=3).eval()
    sizes = [(100, 130), (64, 64), (70, 33)]
    with torch.no_grad():
        outputs = detector(images(*sizes))
    assert len(outputs) == 3
    for output, (height, width) in zip(outputs, sizes, strict=True):
        boxes, scores, labels = output["boxes"], output["scores"], output["labels"]
        assert boxes.shape == (len(scores), 4)
        assert len(scores) == len(labels) <= 100
        assert labels.dtype == torch.int64
        assert set(labels.tolist()) <= {1, 2, 3}
        assert ((scores >= LEAST_SCORE.get(spec.name, 0.05)) & (scores <= 1)).all()
        assert torch.equal(scores, scores.sort(descending=True).values)
        assert (boxes >= 0).all()
        assert (boxes[:, 0::2] <= width).all()
        assert (boxes[:, 1::2] <= height).all()


def test_limits_of_detections(spec: DetectorSpec):
    def found(**limits: float) -> dict[str, Tensor]:
        torch.manual_seed(0)
        limited = DetectorSpec.model_validate({**spec.model_dump(), **limits})
        detector = build_detector(Layout.parse(LAYOUTS[0]), limited, num_classes=3).eval()
        with torch.no_grad():
            for predictor in detector.predictors():  # boxes of many sizes
                predictor.weight.mul_(0.1 if spec.name == "sparse_rcnn" else 1)
                predictor.bias.add_(torch.rand_like(predictor.bias))
            return detector(images((64, 96)))[0]

    every = found(score_threshold=0, detections_per_image=30)
    assert len(every["scores"]) == 30
    few = found(score_threshold=0, detections_per_image=7)
    threshold = every["scores"].median().item()
    likely = found(score_threshold=threshold, detections_per_image=30)
    for name, values in every.items():
        assert torch.allclose(few[name], values[:7])
        if spec.name != "atss":  # whose class alone must be above it too
            assert torch.allclose(likely[name], values[every["scores"] > threshold])
    assert (likely["scores"] > threshold).all()
    assert len(found()["scores"]) == len(found(detections_per_image=100)["scores"])
    if spec.limits.nms_iou < 1:
        apart = found(score_threshold=0, nms_iou=0.1, detections_per_image=30)
        overlap = box_iou(apart["boxes"], apart["boxes"]).nan_to_num().fill_diagonal_(0)
        same = apart["labels"][:, None] == apart["labels"]
        assert overlap[same].max() <= 0.1


@pytest.mark.parametrize(
    "targets",
    [
        [target(), target()],
        [target(), target((3, 3, 40, 40))],
        [target((-5, -5, 500, 500)), target((10, 10, 11, 11))],
        [
            target(*[(x, y, x + 30, y + 20) for x in range(0, 60, 3) for y in range(0, 60, 3)]),
            target(),
        ],
    ],
    ids=["no boxes", "one box", "larger than the image and one pixel", "400 boxes"],
)
def test_degenerate_targets(spec: DetectorSpec, targets: list[Target]):
    detector = build_detector(Layout.parse(LAYOUTS[0]), spec, num_classes=3).train()
    batch = images((96, 96), (64, 128))
    loss = sum(detector(batch, masked(batch, targets)).values())
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in detector.parameters() if p.grad is not None)


SAMPLES_REGIONS = ("faster_rcnn", "cascade_mask_rcnn")  # anew in each batch


def test_validation_loss_is_the_loss_of_all_images_by_the_norms_of_evaluation(spec: DetectorSpec):
    detector = build_detector(Layout.parse(LAYOUTS[0]), spec, num_classes=3)
    batch = images((64, 96), (64, 96), (64, 96))
    boxes = [[(5, 5, 25, 20), (20, 30, 90, 60)], [(0, 0, 60, 60)], []]
    targets = masked(batch, [target(*each) for each in boxes])
    detector.train()
    for module in detector.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    with torch.no_grad():
        torch.manual_seed(SEED)
        expected = float(sum(detector(batch, targets).values()))
        alone = detector.eval()(batch)
    losses, found = ValidationLoss(detector), []
    before = torch.get_rng_state()
    for piece in (slice(3),) if spec.name in SAMPLES_REGIONS else (slice(1), slice(1, 3)):
        with torch.inference_mode():
            found += losses.detections(batch[piece])
            losses.add(targets[piece])
    assert losses.mean() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(module.training for module in detector.modules())
    for ours, theirs in zip(found, alone, strict=True):
        assert torch.allclose(ours["scores"], theirs["scores"], atol=1e-5)


def test_images_are_not_resized_and_padding_does_not_move_boxes(spec: DetectorSpec):
    detector = build_detector(Layout.parse(LAYOUTS[2]), spec, num_classes=3).eval()
    image = images((96, 96))[0]
    with torch.no_grad():
        batch, _ = detector.transform([image, torch.rand(3, 40, 130)])
    assert batch.tensors.shape == (2, 3, 96, 160)
    assert batch.image_sizes == [(96, 96), (40, 130)]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(
        batch.tensors[0, :, :, :96], (image - mean[:, None, None]) / std[:, None, None], atol=1e-6
    )
    assert not batch.tensors[0, :, :, 96:].any()


def test_the_seed_decides_the_weights(spec: DetectorSpec):
    def state(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return build_detector(Layout.parse(LAYOUTS[0]), spec, num_classes=3).state_dict()

    first, again, other = state(1), state(1), state(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_predictors_start_small(spec: DetectorSpec):
    torch.manual_seed(0)
    detector = build_detector(Layout.parse(LAYOUTS[0]), spec, num_classes=80)
    for predictor in detector.predictors():
        # 0.01, and four deviations of 96 numbers
        assert predictor.weight.std() < LARGEST_STD.get(spec.name, 0.013)


def test_a_bundle_brings_the_detector_back(spec: DetectorSpec, tmp_path: Path):
    layout = Layout.parse(LAYOUTS[0])
    detector = build_detector(layout, spec, num_classes=3).train()
    recipe = parse_model(Recipe, load_recipe("tiny"))
    figures = {"map": 0.5, "params": 1, "flops": 1, "memory_predicted_gib": 0.1}
    trained = Trained(layout, spec, recipe, CalibrationSpec(), ("a", "b", "c"), figures, {})
    save_weights(tmp_path / "weights.safetensors", detector)
    weights = tmp_path / "weights.safetensors"
    left_out = write_bundle(tmp_path / "bundle", trained, weights, onnx=False)
    said, again = read_bundle(tmp_path / "bundle")
    assert said == replace(trained, left_out=tuple(left_out))
    batch, targets = (
        images((96, 96), (64, 128)),
        [target((5, 5, 60, 70)), target((20, 10, 100, 50), labels=[3])],
    )
    losses = []
    for each in (detector, again.train()):
        torch.manual_seed(0)  # the sampling of proposals
        losses.append(each(batch, targets))
    assert losses[0].keys() == losses[1].keys()
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])


def scene() -> tuple[Batch, CocoSplit]:
    """Two images with coloured rectangles on noise, for training and as ground truth."""
    batch, targets = images(*[(OVERFIT_SIZE, OVERFIT_SIZE)] * len(SCENE)), []
    coco: dict[str, list] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": str(i)} for i in (1, 2, 3)],
    }
    for number, (image, boxes) in enumerate(zip(batch, SCENE, strict=True), start=1):
        for (x1, y1, x2, y2), label in boxes:
            image[:, y1:y2, x1:x2] = 0.05
            image[label - 1, y1:y2, x1:x2] = 0.95
            shape = {
                "bbox": (x1, y1, x2 - x1, y2 - y1),
                "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
            }
            box = {**shape, "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
            coco["annotations"].append(
                {
                    "id": len(coco["annotations"]) + 1,
                    "image_id": number,
                    "category_id": label,
                    **box,
                }
            )
        coco["images"].append(
            {
                "id": number,
                "file_name": f"{number}.png",
                "height": OVERFIT_SIZE,
                "width": OVERFIT_SIZE,
            }
        )
        truth = target(*[corners for corners, _ in boxes], labels=[label for _, label in boxes])
        targets.append({**truth, "image_id": torch.tensor(number)})
    return Batch(batch, masked(batch, targets)), CocoSplit.from_coco(Path(), coco)


def overfit(spec: DetectorSpec, layout: str) -> CocoMetrics:
    """COCO metrics on the two images that it was trained on."""
    detector = build_detector(Layout.parse(layout), spec, num_classes=3)
    batch, truth = scene()
    steps, lr = SCHEDULES.get(spec.name, (80, 5e-3))
    if spec.neck == "dsod":  # begins later: 0.85 after 120 steps with three seeds
        steps = 2 * steps
    recipe = Recipe(
        epochs=1,
        image_size=OVERFIT_SIZE,
        batch=2,
        lr=lr,
        schedule="cosine",
        warmup_steps=10,
        clip_norm=1,
    )
    train_epoch(
        detector,
        itertools.repeat(batch, steps),
        make_optimizer(detector, recipe),
        lrs=[lr_at(step, steps, recipe) for step in range(steps)],
        accumulate=1,
        clip_norm=recipe.clip_norm,
        precision="fp32",
        device=torch.device("cpu"),
    )
    for name, module in detector.named_modules():  # two images: their own statistics
        if isinstance(module, torch.nn.BatchNorm2d) and not name.startswith(
            "roi_heads."
        ):  # those of boxes are of many
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
    return evaluate(detector, [batch], truth, torch.device("cpu"))[0]


def overfits() -> Iterator[Any]:
    """Every detector with every layout; in the long tests only what takes longer than FCOS and
    ATSS do: the other detectors with the second and third layout, and the slowest two.
    """
    for spec, layout in itertools.product(EACH_ONCE, LAYOUTS):
        long = spec.name in SLOWEST or (spec.name in SCHEDULES and layout != LAYOUTS[0])
        marks = [pytest.mark.long] if long else []
        yield pytest.param(spec, layout, id=f"{spec.name}-{layout}", marks=marks)


@pytest.mark.parametrize(("spec", "layout"), list(overfits()), indirect=["spec"])
def test_overfits_two_images(spec: DetectorSpec, layout: str):
    metrics = overfit(spec, layout)
    assert metrics.map > 0.9
    assert metrics.map_segm > 0.8 if spec.learns_masks else metrics.map_segm is None


@pytest.mark.long
def test_overfits_two_images_in_every_variant(spec: DetectorSpec):
    if spec in EACH_ONCE:
        pytest.skip("not only here")
    # RoIPool rounds boxes to whole cells: it cannot place them as exactly as an IoU of 0.95 asks.
    assert overfit(spec, LAYOUTS[0]).map > (0.6 if spec.roi_op == "pool" else 0.9)
