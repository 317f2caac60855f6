"""A detector's weights under mmdetection's names are those that mmdetection itself builds; recorded
by `record_mmdetection.py`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from nas.config.parsing import parse_model
from nas.config.recipe import Recipe, load_recipe
from nas.config.sections import CalibrationSpec, DetectorSpec
from nas.export.code_files import code_files
from nas.export.description import Trained
from nas.export.mmdetection.names import mmdetection_names
from nas.export.mmdetection.weights import renamed
from nas.models.detectors import DETECTORS, build_detector
from nas.models.detectors.transform import IMAGENET
from search_spaces.layout import Layout

NAMES = Path(__file__).parent / "mmdetection_names.json"
LAYOUT = Layout.parse("C1-C1-C1-C1@16")
CLASSES = ("ant", "bee", "cow")
KNOWN = ("fcos", "atss", "faster_rcnn", "cascade_mask_rcnn", "sparse_rcnn")


def spec_of(detector: str) -> DetectorSpec:
    return DetectorSpec(name=detector, channels=32, hidden=16, proposals=5)


def state_of(detector: str) -> dict[str, torch.Tensor]:
    return build_detector(LAYOUT, spec_of(detector), len(CLASSES)).state_dict()


@pytest.mark.parametrize("detector", KNOWN)
def test_names_and_shapes_are_those_that_mmdetection_builds(detector: str):
    state = state_of(detector)
    converted = renamed(state, mmdetection_names(spec_of(detector)))
    shapes = {name: list(weight.shape) for name, weight in converted.items()}
    backbone = {name for name in shapes if name.startswith("backbone.")}
    assert backbone == {name for name in state if name.startswith("backbone.backbone.")}
    heads = {name: shape for name, shape in shapes.items() if name not in backbone}
    assert heads == json.loads(NAMES.read_text())[detector]


@pytest.mark.parametrize("detector", KNOWN)
def test_every_weight_but_the_images_statistics_has_a_name(detector: str):
    state, names = state_of(detector), mmdetection_names(spec_of(detector))
    nameless = {name for name in state if not any(name.startswith(each) for each in names)}
    assert nameless == {"transform.mean", "transform.std"}


def test_the_background_becomes_the_last_class_and_each_level_has_its_scale():
    weights = {"a.cls_score.bias": torch.tensor([7.0, 1, 2]), "b.scales": torch.tensor([3.0, 4])}
    found = renamed(weights, {"a.cls_score.": "x.", "b.scales": "y"})
    assert found["x.bias"].tolist() == [1, 2, 7]
    assert {name: x.item() for name, x in found.items() if x.ndim == 0} == {
        "y.0.scale": 3,
        "y.1.scale": 4,
    }


def test_what_mmdetection_does_not_have_has_no_names():
    assert set(KNOWN) == set(json.loads(NAMES.read_text()))
    for detector in DETECTORS:
        for neck in ("fpn", "bifpn", "dsod"):
            known = bool(mmdetection_names(DetectorSpec(name=detector, neck=neck)))
            assert known == (neck == "fpn" and detector in KNOWN)


def write_code(folder: Path) -> None:
    """Write the code of small bundles of all detectors that mmdetection has, one folder each."""
    recipe = parse_model(Recipe, load_recipe("tiny"))
    for detector in KNOWN:
        place = folder / detector
        place.mkdir(parents=True)
        described = (LAYOUT, spec_of(detector), recipe, CalibrationSpec(), CLASSES, {}, {})
        for name, text in code_files(Trained(*described), IMAGENET).items():
            (place / name).write_text(text)


if __name__ == "__main__":
    write_code(Path(sys.argv[1]))
