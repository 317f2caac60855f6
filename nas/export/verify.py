"""Check that a bundle is what was exported, and that all its forms are the same network.

Hashes come first: nothing is loaded, let alone run, before every byte is the one that was exported.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nas.artifacts.paths import LAST_WEIGHTS
from nas.errors import BundleError
from nas.export.bundle import backbone_weights, read_bundle
from nas.export.description import Trained
from nas.export.manifest import check_manifest
from nas.export.onnx.export import READERS, missing
from nas.export.onnx.writer import (
    BACKBONE,
    DETECTOR,
    compare_backbone,
    compare_detector,
    random_images,
    same,
)
from nas.models.detectors import Detector

# What a stranger's interpreter does: our packages cannot be imported, nothing is written beside the
# code.
_LOADED = """
import sys
sys.path.insert(0, sys.argv[1])
sys.modules.update(dict.fromkeys(("nas", "search_spaces", "workers", "dashboards")))
import torch
from safetensors.torch import load_file, save_file
{build}
batches = load_file(sys.argv[2])
with torch.no_grad():
    maps = {{f"{{name}}.{{i}}": x.contiguous() for name, images in batches.items() for i, x in enumerate(network(images))}}
save_file(maps, sys.argv[3])
"""
_BACKBONE = """
from backbone import load_features
features = load_features(sys.argv[1] + "/backbone.safetensors").eval()
network = lambda images: [*features.backbone(images), *features(images)]"""
_MMENGINE = """
from mmengine.config import Config
from mmengine.registry import MODELS
backbone = Config.fromfile(sys.argv[1] + '/mmdet_config.py').model.backbone
network = MODELS.build({**backbone, "out_indices": (0, 1, 2, 3)}).eval()"""


@dataclass(frozen=True)
class Check:
    """What was checked of a bundle; what fails raises an error instead.

    Args:
        name: the file, or what was checked.
        passed: False where the check was skipped.
        detail: what was compared, or why it was skipped.
    """

    name: str
    passed: bool
    detail: str


def verify(folder: Path) -> tuple[Trained, Detector, list[Check]]:
    """Check everything of a bundle that needs no data set: its hashes first, then that each form
    loads and gives the detector's outputs.

    Args:
        folder: that of the bundle.

    Returns:
        What the bundle says of itself, its detector, and the checks in the order in which they were
        done.

    Raises:
        BundleError: something is wrong; the text names it.
    """
    names = check_manifest(folder)
    trained, detector = read_bundle(folder)
    checks = [
        Check("hashes", True, f"{len(names)} files as exported"),
        Check("detector.safetensors", True, "loads"),
    ]
    return trained, detector, [*checks, *_forms(folder, names, detector)]


def _forms(folder: Path, names: list[str], detector: Detector) -> Iterator[Check]:
    """Each form of the bundle in turn, compared with the detector."""
    weights = load_file(folder / "backbone.safetensors")
    expected = backbone_weights(detector.state_dict())
    if set(weights) != set(expected) or not all(
        torch.equal(x, expected[name]) for name, x in weights.items()
    ):
        raise BundleError("backbone.safetensors has other weights than detector.safetensors")
    yield Check("backbone.safetensors", True, "the detector's weights")
    if LAST_WEIGHTS in names:
        if set(load_file(folder / LAST_WEIGHTS)) != set(detector.state_dict()):
            raise BundleError(f"{LAST_WEIGHTS} has other tensors than detector.safetensors")
        yield Check(LAST_WEIGHTS, True, "the detector's tensors")
    yield _same_elsewhere(folder, detector, "backbone.py", _BACKBONE, times=2)
    if find_spec("mmengine"):
        yield _same_elsewhere(folder, detector, "mmdet_config.py", _MMENGINE)
    else:
        yield Check("mmdet_config.py", False, "mmengine is not installed")
    compared: tuple[tuple[str, Callable[[Path, Detector], None]], ...] = (
        (BACKBONE, compare_backbone),
        (DETECTOR, compare_detector),
    )
    for name, compare in compared:
        if name not in names:
            yield Check(name, False, "the bundle has none (README.md says why)")
        elif absent := missing(READERS):
            yield Check(
                name, False, f"{absent[0]} is not installed: pip install 'scratch-nas[onnx]'"
            )
        else:
            compare(folder / name, detector)
            yield Check(name, True, "same outputs, in onnxruntime")


def _same_elsewhere(
    folder: Path, detector: Detector, name: str, build: str, times: int = 1
) -> Check:
    """Compare the backbone's maps with those that a fresh interpreter without our packages gets,
    which gives each `times` over.

    Raises:
        BundleError: it fails there, or gives other maps.
    """
    batches = {str(number): images for number, images in enumerate(random_images())}
    outputs = run_elsewhere(folder, build, batches, name)
    for number, images in batches.items():
        with torch.no_grad():
            maps = times * detector.backbone.backbone(images)
        theirs = [outputs.get(f"{number}.{i}", torch.zeros(0)) for i in range(len(maps))]
        same(name, theirs, maps)
    return Check(name, True, "same outputs, in an interpreter without scratch-nas")


def run_elsewhere(
    folder: Path, build: str, batches: dict[str, Tensor], name: str
) -> dict[str, Tensor]:
    """Run a file of a bundle in a fresh interpreter that cannot import our packages.

    Args:
        folder: that of the bundle; its modules can be imported there.
        build: lines that make a callable `network`, images to a list of maps.
        batches: images [B, 3, H, W], normalised, each by a name.
        name: the file that is tried, for the error.

    Returns:
        Maps [B, C, H, W] of each batch: `NAME.0` is the first one of the batch `NAME`.

    Raises:
        BundleError: it fails there.
    """
    with tempfile.TemporaryDirectory() as scratch:
        images, maps = f"{scratch}/images.safetensors", f"{scratch}/maps.safetensors"
        save_file(batches, images)
        command = [
            sys.executable,
            "-I",
            "-B",
            "-c",
            _LOADED.format(build=build),
            str(folder.resolve()),
            images,
            maps,
        ]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=scratch)
        if ran.returncode:
            last = ran.stderr.strip().splitlines()[-1:] or ["no word"]
            raise BundleError(f"{name} does not load: {last[0]}")
        return load_file(maps)
