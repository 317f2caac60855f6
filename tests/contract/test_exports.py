"""Every form of a bundle is the same network, for every kind of layout, in an interpreter that does
not have this package.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.networks import randomize
from safetensors.torch import load_file, save_file
from torch import nn

from nas.config.parsing import parse_model
from nas.config.recipe import Recipe, load_recipe
from nas.config.sections import CalibrationSpec, DetectorSpec
from nas.errors import BundleError, MissingDependency
from nas.export.backbone_source import backbone_source
from nas.export.bundle import FILES, ONNX_FILES, read_bundle, write_bundle
from nas.export.description import Trained
from nas.export.manifest import MANIFEST, check_manifest
from nas.export.onnx.export import OnnxModel, backbone_onnx
from nas.export.onnx.tracing import traced
from nas.export.onnx.writer import TOLERANCE, compare_detector, matched_share, same, write_onnx
from nas.export.verify import verify
from nas.models.backbones import build_backbone
from nas.models.detectors import Detector, build_detector
from nas.models.detectors.transform import ImageStatistics
from nas.models.weights import load_backbone_weights
from nas.training.checkpoint import save_weights
from search_spaces.layout import Layout

SIZES = [
    (1, 32, 32),
    (2, 64, 96),
    (1, 70, 101),
    (3, 33, 47),
    (1, 17, 230),
    (1, 225, 113),
]  # windows are 28 pixels and up
# Blocks of attention, and the heads of Faster R-CNN, take most of a minute to be written as ONNX.
# The other detectors are in test_onnx_detectors.py.
KINDS = [
    ("C1-C1-T2-T1@16", "fcos"),
    ("C1-C1-C1-C1@16", "atss"),
    pytest.param(("T1-T2-T1-T1@16", "faster_rcnn"), marks=pytest.mark.long),
]
LIMITS = {"detections_per_image": 150, "score_threshold": 0.02, "nms_iou": 0.7}
FORMS = ("backbone.py", "features_only", "BackboneWithFPN's body", "mmdetection", "onnx")
# How a stranger loads each form; `network` gives a list of four maps.
LOADED = {
    "backbone.py": "from backbone import load_backbone\nnetwork = "
    "load_backbone('backbone.safetensors').eval()",
    "features_only": "from backbone import load_features\nnetwork = "
    "load_features('backbone.safetensors').eval()",
    "BackboneWithFPN's body": "from backbone import NamedFeatures, load_backbone\n"
    "body = NamedFeatures(load_backbone('backbone.safetensors')).eval()\nnetwork = lambda images: "
    "list(body(images).values())",
    "mmdetection": "sys.path.insert(0, '.')\nfrom mmengine.config import Config\nfrom "
    "mmengine.registry import MODELS\n"
    "import mmdet_backbone\n"
    "config = Config.fromfile('mmdet_config.py', import_custom_modules=False)\n"
    "backbone = {**config.model.backbone, 'out_indices': (0, 1, 2, 3)}\n"
    "network = MODELS.build(backbone).eval()",
    "onnx": "import onnxruntime\nsession = onnxruntime.InferenceSession('backbone.onnx')\n"
    "network = lambda images: [torch.from_numpy(x) for x in session.run(None, {'images': "
    "images.numpy()})]",
}
SCRIPT = """
import sys
sys.path.insert(0, ".")
for name in ("nas", "search_spaces", "workers", "dashboards"):
    sys.modules[name] = None
import torch
from safetensors.torch import load_file, save_file
{loaded}
with torch.no_grad():
    inputs = load_file(sys.argv[1])
    maps = {{name: network(images) for name, images in inputs.items()}}
    found = {{f"{{name}}.{{i}}": x for name in maps for i, x in enumerate(maps[name])}}
save_file({{name: x.contiguous() for name, x in found.items()}}, sys.argv[2])
"""


def candidate(layout: str, detector: str) -> tuple[Trained, Detector]:
    """Weights far from their initial values; predictors near them, so that detections are many."""
    spec = DetectorSpec(name=detector, channels=64, hidden=64, **LIMITS)
    recipe = parse_model(Recipe, load_recipe("tiny"))
    trained = Trained(
        Layout.parse(layout),
        spec,
        recipe,
        CalibrationSpec(),
        ("ant", "bee", "cow"),
        figures={"map": 0.5},
        origin={"data": "zoo", "seed": 0, "data_fingerprint": "f"},
    )
    torch.manual_seed(0)  # whichever tests came before
    network = build_detector(trained.layout, spec, 3).eval()
    with torch.no_grad():
        randomize(network.backbone.backbone)
    torch.manual_seed(0)  # whatever the initialisation drew
    for predictor in network.predictors():
        nn.init.normal_(predictor.weight, std=0.05)
    if detector == "fcos":
        nn.init.constant_(network.head.classification_head.cls_logits.bias, -2)
    return trained, network


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    trained, network = candidate(*request.param)
    save_weights(folder / "weights.safetensors", network)
    write_bundle(folder / "out", trained, folder / "weights.safetensors")
    return folder / "out"


@pytest.fixture(scope="module")
def images() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        str(n): torch.rand(b, 3, h, w, generator=generator) for n, (b, h, w) in enumerate(SIZES)
    }


@pytest.mark.parametrize("form", FORMS)
def test_a_form_gives_the_networks_maps(
    bundle: Path, images: dict[str, torch.Tensor], tmp_path: Path, form: str
):
    given, found = tmp_path / "given.safetensors", tmp_path / "found.safetensors"
    save_file(images, given)
    script = SCRIPT.format(loaded=LOADED[form])
    subprocess.run(
        [sys.executable, "-I", "-B", "-W", "ignore", "-c", script, given, found],
        check=True,
        cwd=bundle,
    )
    maps, (_, network) = load_file(found), read_bundle(bundle)
    for name, batch in images.items():
        with torch.no_grad():
            expected = network.backbone.backbone(batch)
        for i, x in enumerate(expected):
            assert torch.allclose(maps[f"{name}.{i}"], x, atol=TOLERANCE, rtol=TOLERANCE), (
                form,
                batch.shape,
            )


def test_mmdetection_has_the_limits_of_detections(bundle: Path):
    scope: dict[str, Any] = {}
    exec((bundle / "mmdet_config.py").read_text(), scope)  # a file of assignments
    tested = scope["model"]["test_cfg"]
    tested = tested.get("rcnn", tested)
    assert (tested["max_per_img"], tested["score_thr"]) == (150, 0.02)
    assert tested["nms"] == {"type": "nms", "iou_threshold": 0.7}


def test_detections_are_the_networks(bundle: Path, images: dict[str, torch.Tensor]):
    _, network = read_bundle(bundle)
    model, counts = OnnxModel(bundle / "detector.onnx"), []
    for batch in images.values():
        with torch.no_grad():
            (expected,) = network([batch[0]])
        found = model(batch[:1])
        counts.append(len(found[0]))
        assert (
            matched_share(found, [expected[name] for name in ("boxes", "scores", "labels")]) >= 0.95
        )
    assert max(counts) > 100
    assert len(set(counts)) > 1


def test_the_bundle_is_whole_and_passes(bundle: Path):
    names = {path.name for path in bundle.iterdir()}
    assert names == {*FILES, *ONNX_FILES}
    assert set(check_manifest(bundle)) == names - {MANIFEST}
    _, _, checks = verify(bundle)
    assert all(check.passed for check in checks)
    assert {path.name for path in bundle.iterdir()} == names  # nothing is left there


def test_every_form_says_what_images_are_normalised_by(tmp_path: Path):
    trained, network = candidate("C1-C1-C1-C1@16", "fcos")
    own = ImageStatistics((0.1, 0.5, 0.9), (0.2, 0.3, 0.4))
    network.transform.set_statistics(own)
    save_weights(tmp_path / "weights.safetensors", network)
    write_bundle(tmp_path / "out", trained, tmp_path / "weights.safetensors", onnx=False)
    assert read_bundle(tmp_path / "out")[1].transform.statistics == own
    description = yaml.safe_load((tmp_path / "out/backbone.yaml").read_text())
    assert (description["image_mean"], description["image_std"]) == (list(own.mean), list(own.std))
    assert f"minus {own.mean}, over {own.std}" in (tmp_path / "out/README.md").read_text()
    config = (tmp_path / "out/mmdet_config.py").read_text()
    assert "'mean': [25.5, 127.5, 229.5]" in config
    assert "'std': [51.0, 76.5, 102.0]" in config
    backbone = build_backbone(trained.layout)
    report = load_backbone_weights(backbone, tmp_path / "out/backbone.safetensors")
    assert report.statistics == own


def test_the_cards_examples_run(bundle: Path, tmp_path: Path):
    blocks = re.findall(r"```python\n(.*?)```", (bundle / "README.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 4
    script = (
        "import sys; sys.path.insert(0, '.')\nimport torch\nimages = torch.rand(2, 3, 64, 96)\n"
        + "\n".join(blocks)
    )
    script += "\nmodel.transform.min_size = (64,)\n"
    script += (
        "assert set(model.eval()([torch.rand(3, 64, 96)])[0]) == {'boxes', 'labels', 'scores'}\n"
    )
    script += (
        "losses = model.train()([torch.rand(3, 64, 96)], [{'boxes': torch.tensor([[1., 2., 30., "
        "40.]]), "
    )
    script += "'labels': torch.tensor([1])}])\nsum(losses.values()).backward()\n"
    ran = subprocess.run(
        [sys.executable, "-I", "-B", "-W", "ignore", "-c", script],
        cwd=bundle,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("[32, 64, 128] [8, 16, 32]")


def test_feature_info_says_what_timms_says():
    from timm.models._features import FeatureInfo

    scope: dict = {"__name__": "backbone"}
    exec(compile(backbone_source(Layout.parse("C1-C1-T1-T1@16")), "backbone.py", "exec"), scope)
    for chosen in ((0, 1, 2, 3), (1, 3), (-1,)):
        features = scope["BackboneFeatures"](scope["build_backbone"](), chosen).eval()
        info = features.feature_info
        theirs = FeatureInfo(
            [dict(entry) for entry in info.info], tuple(range(4)[index] for index in chosen)
        )
        for name in ("channels", "reduction", "module_name", "get_dicts"):
            assert getattr(info, name)() == getattr(theirs, name)()
        assert (info.out_indices, len(info)) == (theirs.out_indices, len(chosen))
        with torch.no_grad():
            maps = features(torch.rand(1, 3, 64, 64))
        assert [(x.shape[1], 64 // x.shape[2]) for x in maps] == list(
            zip(info.channels(), info.reduction(), strict=True)
        )


@pytest.mark.long
def test_onnx_of_an_unusual_layout(images: dict[str, torch.Tensor]):
    layout = "C1-T2-C1-T1@16,16,32,24+norm=gn+stem=dsod+dense=true+window=4"
    network = build_backbone(Layout.parse(layout)).eval()
    with torch.no_grad():
        randomize(network)
        model = OnnxModel(backbone_onnx(network))
        for batch in images.values():
            for x, y in zip(model(batch), network(batch), strict=True):
                assert torch.allclose(x, y, atol=TOLERANCE, rtol=TOLERANCE)


def test_what_is_wrong_with_onnx_is_found(bundle: Path):
    """A detector of other weights is not what the file holds."""
    _, network = read_bundle(bundle)
    for predictor in network.predictors():
        nn.init.normal_(predictor.weight, std=0.1)
    with pytest.raises(BundleError, match=r"detector\.onnx gives other detections"):
        compare_detector(bundle / "detector.onnx", network)


def test_rounding_is_measured_by_the_size_of_a_map():
    large = torch.tensor([[1000.0, 0.0]])
    same("a.onnx", [large + 0.05], [large])  # 5e-5 of a thousand
    with pytest.raises(BundleError, match="by more than 0.0001 of them"):
        same("a.onnx", [large + 0.2], [large])
    with pytest.raises(BundleError, match="other outputs"):
        same("a.onnx", [torch.tensor([2e-4])], [torch.tensor([0.0])])


def test_a_file_that_differs_or_cannot_be_written_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def differs(path: Path, network: Detector) -> None:
        raise BundleError(f"{path.name} gives other outputs")

    def unwritable(*_: object) -> bytes:
        raise BundleError("torch 9 cannot write Heads as ONNX (ValueError)")

    monkeypatch.setattr("nas.export.onnx.writer.backbone_onnx", lambda *args: b"x")
    monkeypatch.setattr("nas.export.onnx.writer.compare_backbone", differs)
    monkeypatch.setattr("nas.export.onnx.writer.detector_onnx", unwritable)
    _, network = candidate("C1-C1-C1-C1@16", "atss")
    assert write_onnx(tmp_path, network) == [
        "backbone.onnx was left out: backbone.onnx gives other outputs.",
        "detector.onnx was left out: torch 9 cannot write Heads as ONNX (ValueError).",
    ]
    assert list(tmp_path.iterdir()) == []


def test_without_its_packages_onnx_is_left_out_and_skipped(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _, network = read_bundle(bundle)
    with monkeypatch.context() as patch:
        patch.setattr("nas.export.onnx.export.find_spec", lambda package: None)
        patch.setattr("nas.errors.find_spec", lambda package: None)
        (said,) = write_onnx(tmp_path, network)
        assert (
            said == "ONNX files need the package onnx: pip install 'scratch-nas[onnx]', and export "
            "again."
        )
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(MissingDependency, match=r"pip install 'scratch-nas\[onnx\]'"):
            backbone_onnx(network.backbone.backbone)
        patch.setattr("nas.export.code_runs.find_spec", lambda package: None)
        patch.setattr("nas.export.code_runs._compare", lambda *_, **__: None)
        _, _, checks = verify(bundle, run_code=True)
    said = {check.name: check.detail for check in checks if not check.passed}
    assert said["mmdet_config.py"] == "mmengine is not installed"
    assert said["backbone.onnx"] == "onnx is not installed: pip install 'scratch-nas[onnx]'"


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_a_changed_byte_is_refused_in_every_file(bundle: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    for path in sorted(copy.iterdir()):
        content = path.read_bytes()
        for place in (0, len(content) // 2, len(content) - 1):
            path.write_bytes(flipped(content, place))
            with pytest.raises(
                BundleError, match=re.escape(path.name) if path.name != MANIFEST else None
            ):
                verify(copy)
        path.write_bytes(content)
    check_manifest(copy)


def test_the_bytes_of_the_manifest_count(bundle: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    content = (copy / MANIFEST).read_bytes()
    for place in range(0, len(content), 5):
        (copy / MANIFEST).write_bytes(flipped(content, place))
        with pytest.raises(BundleError):
            check_manifest(copy)
    reordered = json.dumps(json.loads(content)).encode()
    (copy / MANIFEST).write_bytes(reordered)
    with pytest.raises(BundleError, match="has been changed"):
        check_manifest(copy)


def test_code_that_was_changed_is_not_run(bundle: Path, tmp_path: Path):
    copy, mark = tmp_path / "copy", tmp_path / "ran"
    shutil.copytree(bundle, copy)
    for name in ("backbone.py", "mmdet_backbone.py", "mmdet_detector.py", "mmdet_config.py"):
        text = (copy / name).read_text()
        (copy / name).write_text(f"open({str(mark)!r}, 'w')\n{text}")
    with pytest.raises(BundleError, match=r"backbone\.py is not what was exported"):
        verify(copy)
    assert not mark.exists()


def test_missing_and_strange_files_are_named(bundle: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    (copy / "__pycache__").mkdir()
    with pytest.raises(BundleError, match=r"__pycache__ is not in manifest\.json; delete it"):
        verify(copy)
    (copy / "__pycache__").rmdir()
    (copy / "backbone.yaml").unlink()
    with pytest.raises(BundleError, match=r"backbone\.yaml is missing"):
        verify(copy)
    (copy / "backbone.yaml").symlink_to(bundle / "backbone.yaml")
    with pytest.raises(BundleError, match=r"backbone\.yaml is not what was exported"):
        verify(copy)
    (copy / MANIFEST).unlink()
    with pytest.raises(BundleError, match=r"has no manifest\.json"):
        verify(copy)


def test_what_pytorch_cannot_write_is_one_line():
    class Counting(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if x.sum() > 0 else x

    with pytest.raises(BundleError, match=r"cannot write Counting as ONNX \(\w+\)$"):
        traced(Counting(), [torch.rand(2, 3, 4, 5)], channels=1)
