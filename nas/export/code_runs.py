"""Running the code of a bundle, for whoever trusts it, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nas.errors import BundleError
from nas.export.onnx.writer import random_images, same
from nas.models.detectors import Detector

# What a stranger's interpreter does: our packages cannot be imported, nothing is written beside the
# code, and the bundle's modules come after those that are installed.
_LOADED = """
import sys
sys.path.append(sys.argv[1])
sys.modules.update(dict.fromkeys(("nas", "search_spaces", "workers", "dashboards")))
import torch
from safetensors.torch import load_file, save_file
{build}
batches = load_file(sys.argv[2])
with torch.no_grad():
    maps = {{name: network(images) for name, images in batches.items()}}
flat = {{f"{{name}}.{{i}}": x.contiguous() for name in maps for i, x in enumerate(maps[name])}}
save_file(flat, sys.argv[3])
"""
_BACKBONE = """
from backbone import load_features
features = load_features(sys.argv[1] + "/backbone.safetensors").eval()
network = lambda images: [*features.backbone(images), *features(images)]"""
_MMENGINE = """
from mmengine.config import Config
from mmengine.registry import MODELS
import mmdet_backbone
config = Config.fromfile(sys.argv[1] + '/mmdet_config.py', import_custom_modules=False)
backbone = config.model.backbone
network = MODELS.build({**backbone, "out_indices": (0, 1, 2, 3)}).eval()"""


def compare_code(folder: Path, detector: Detector) -> Iterator[tuple[str, str]]:
    """Run the code of a bundle, and compare the backbone's maps with a detector's.

    Args:
        folder: that of the bundle.
        detector: with the bundle's weights.

    Yields:
        Each file that gave the same maps; or that was skipped, and why, where the second is not
        empty.

    Raises:
        BundleError: a file fails, or gives other maps.
    """
    _compare(folder, detector, "backbone.py", _BACKBONE, times=2)
    yield "backbone.py", ""
    if find_spec("mmengine"):
        _compare(folder, detector, "mmdet_config.py", _MMENGINE)
        yield "mmdet_config.py", ""
    else:
        yield "mmdet_config.py", "mmengine is not installed"


def _compare(folder: Path, detector: Detector, name: str, build: str, times: int = 1) -> None:
    """The file gives each of the backbone's maps `times` over."""
    batches = {str(number): images for number, images in enumerate(random_images())}
    outputs = run_elsewhere(folder, build, batches, name)
    for number, images in batches.items():
        with torch.no_grad():
            maps = times * detector.backbone.backbone(images)
        theirs = [outputs.get(f"{number}.{i}", torch.zeros(0)) for i in range(len(maps))]
        same(name, theirs, maps)


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
