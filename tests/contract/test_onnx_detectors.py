"""Every detector's ONNX file finds what the network finds, in photographs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.networks import randomize
from onnxruntime import InferenceSession
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor
from torchvision.ops import clip_boxes_to_image
from torchvision.transforms.v2 import functional as F

from nas.api.prediction import Predictor
from nas.config.parsing import parse_model
from nas.config.recipe import Recipe, load_recipe
from nas.config.sections import CalibrationSpec, DetectorSpec
from nas.evaluation.detections import ImageDetections
from nas.export.bundle import read_bundle, write_bundle
from nas.export.description import Trained
from nas.export.onnx.detector import HEADS, detector_onnx
from nas.export.onnx.export import OnnxModel
from nas.export.onnx.tracing import traced
from nas.export.onnx.two_stage import _Candidates
from nas.export.verify import verify
from nas.models.detectors import DETECTORS, Detector, build_detector
from nas.models.detectors.faster_rcnn import region_proposals
from nas.training.checkpoint import save_weights
from search_spaces.layout import Layout

LAYOUT = "C1-C1-C1-C1@16"  # T stages are in test_exports.py: attention takes a minute to be written
# Group norm has 32 groups: with 32 channels, on a map of one cell, it norms rounding errors, which
# move the corners of RepPoints v2.
SPECS = [
    {"name": "fcos", "neck": "dsod"},
    {"name": "atss"},
    {"name": "faster_rcnn"},
    {"name": "faster_rcnn", "roi_op": "pool"},
    {"name": "cascade_mask_rcnn"},
    {"name": "cascade_mask_rcnn", "masks": False},
    {"name": "reppoints_v2", "channels": 64},
    {"name": "reppoints_v2", "channels": 64, "neck": "fpn", "box_transform": "corners"},
    {"name": "sparse_rcnn", "proposals": 20},
]
SHORT = [{"name": "sparse_rcnn", "proposals": 20}]  # the others take a minute each
SIZES = ((128, 192), (213, 320), (145, 97))  # height and width, pixels
PIXELS, SCORE, CELL = 1e-2, 1e-3, 1e-2  # how much boxes, scores and cells of masks may differ
# RoIPool rounds proposals to cells; where they differ in the last bit, it may look elsewhere.
ROUNDING = 0.05  # share of its detections


def build(spec: DetectorSpec) -> Detector:
    """Weights far from their initial values; predictors such that detections are many."""
    torch.manual_seed(0)
    network = build_detector(Layout.parse(LAYOUT), spec, 3).eval()
    with torch.no_grad():
        randomize(network.backbone.backbone)
        for predictor in network.predictors():
            torch.nn.init.normal_(predictor.weight, std=0.05)
            predictor.bias.clamp_(min=-2)
    return network


@pytest.fixture(
    scope="module",
    params=[pytest.param(spec, marks=[] if spec in SHORT else pytest.mark.long) for spec in SPECS],
    ids=lambda spec: "-".join(map(str, spec.values())),
)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = DetectorSpec(**{"channels": 32, "hidden": 32, "score_threshold": 0.02} | request.param)
    recipe = parse_model(Recipe, load_recipe("tiny") | {"image_size": 128, "max_size": 240})
    origin = {"data": "zoo", "seed": 0, "data_fingerprint": "f"}
    folder = tmp_path_factory.mktemp("bundle")
    save_weights(folder / "weights.safetensors", build(spec))
    trained = Trained(
        Layout.parse(LAYOUT),
        spec,
        recipe,
        CalibrationSpec(),
        ("ant", "bee", "cow"),
        figures={"map": 0.5},
        origin=origin,
    )
    assert write_bundle(folder / "out", trained, folder / "weights.safetensors") == []
    return folder / "out"


def photographs() -> list[Tensor]:
    """A temple and a flower [3, H, W], 0 to 1, in several sizes."""
    pictures = [torch.from_numpy(each.copy()) for each in load_sample_images().images]
    return [
        F.to_dtype_image(F.resize_image(each.permute(2, 0, 1), size), torch.float32, scale=True)
        for each in pictures
        for size in map(list, SIZES)
    ]


def unmatched(given: dict[str, Tensor], expected: dict[str, Tensor]) -> int:
    """How many detections have no counterpart of their own, one after the other."""
    left, missing = [*range(len(given["labels"]))], 0
    for index in range(len(expected["labels"])):
        for other in left:
            if equal(given, other, expected, index):
                left.remove(other)
                break
        else:
            missing += 1
    return max(missing, len(left))


def equal(given: dict[str, Tensor], one: int, expected: dict[str, Tensor], other: int) -> bool:
    limits = {"boxes": PIXELS, "scores": SCORE, "labels": 0, "masks": CELL}
    return all(
        float((given[name][one] - values[other]).abs().max()) <= limits[name]
        for name, values in expected.items()
    )


def found_by(network: Detector, image: Tensor) -> dict[str, Tensor]:
    with torch.inference_mode():
        (found,) = network([image])
    return found


def test_every_detector_is_written(bundle: Path):
    assert set(HEADS) == set(DETECTORS) == {spec["name"] for spec in SPECS}
    assert (bundle / "detector.onnx").exists()
    _, network, checks = verify(bundle)
    assert all(check.passed for check in checks)
    names = ["boxes", "scores", "labels"] + ["masks"] * network.masks
    assert OnnxModel(bundle / "detector.onnx").outputs == names


def test_the_file_finds_what_the_network_finds(bundle: Path):
    trained, network = read_bundle(bundle)
    model, total, strange = OnnxModel(bundle / "detector.onnx", threads=1), 0, 0
    for image in photographs():
        expected = found_by(network, image)
        given = dict(zip(model.outputs, model(image[None]), strict=True))
        assert set(given) == set(expected)
        strange += unmatched(given, expected)
        total += len(expected["labels"])
    assert total > 100
    assert strange <= (ROUNDING * total if trained.detector.roi_op == "pool" else 0)


def test_predicting_by_the_file_is_predicting_by_the_network(bundle: Path):
    pictures = [Image.fromarray(each) for each in load_sample_images().images]
    by_torch, by_onnx = (Predictor(bundle, onnx=onnx)(pictures) for onnx in (False, True))
    for expected, given in zip(by_torch, by_onnx, strict=True):
        assert (given.masks is None) == (expected.masks is None)
        rounding = ROUNDING if Predictor(bundle).trained.detector.roi_op == "pool" else 0
        assert unmatched(tensors(given), tensors(expected)) <= rounding * len(expected)


def tensors(found: ImageDetections) -> dict[str, Tensor]:
    """Boxes in the pixels that the network saw: the photographs are 3.3 times as large."""
    return {
        "boxes": torch.from_numpy(found.boxes) * 128 / found.height,
        "scores": torch.from_numpy(found.scores),
        "labels": torch.from_numpy(found.labels),
    }


def test_regions_that_are_all_sure_are_ranked():
    """Above a logit of 17 probabilities round to 1."""
    rpn = region_proposals(32).eval()
    image, height, width = torch.rand(1, 3, 160, 256), 40, 64
    logits = 20 + torch.randperm(3 * height * width).view(1, 3, height, width) / 1000
    deltas = torch.zeros(1, 12, height, width)
    content = traced(_Candidates(rpn, 0), [image, logits, deltas], 1).SerializeToString()
    session = InferenceSession(content, providers=["CPUExecutionProvider"])
    given = [each.numpy() for each in (image, logits, deltas)]
    names = [each.name for each in session.get_inputs()]
    boxes, scores, _ = session.run(None, dict(zip(names, given, strict=True)))
    order = logits[0].permute(1, 2, 0).flatten().argsort(descending=True)[:1000]
    anchors = rpn.anchor_generator.of_image((160, 256), torch.device("cpu"))[order]
    assert torch.equal(torch.from_numpy(boxes), clip_boxes_to_image(anchors, (160, 256)))
    assert set(scores.tolist()) == {1.0}


def silenced(network: Detector) -> Detector:
    """The same network, finding nothing."""
    with torch.no_grad():
        for name, bias in network.named_parameters():
            if name.endswith("cls_score.bias"):
                bias[0] = 50  # the background
            elif name.endswith("logits.bias"):
                bias.fill_(-50)
    return network


@pytest.mark.long
@pytest.mark.parametrize("name", ["fcos", "reppoints_v2", "cascade_mask_rcnn"])
def test_where_there_is_nothing(name: str):
    network = silenced(build(DetectorSpec(name=name, channels=32, hidden=32)))
    model = OnnxModel(detector_onnx(network))
    for image in photographs():
        expected = found_by(network, image)
        shapes = [list(expected[name].shape) for name in model.outputs]
        assert len(expected["labels"]) == 0
        assert [list(value.shape) for value in model(image[None])] == shapes
