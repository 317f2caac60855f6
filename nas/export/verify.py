"""Check that a bundle is what was exported, and that all its forms are the same network.

Hashes come first, and nothing of a bundle is run: its code is compared with what this version
writes for its description, and its weights are loaded into this package's own network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from nas.artifacts.paths import LAST_WEIGHTS
from nas.config.parsing import read_yaml
from nas.errors import BundleError
from nas.export.bundle import (
    FILES,
    OPTIONAL_FILES,
    backbone_weights,
    described_files,
    read_bundle,
    read_weights,
)
from nas.export.code_files import CODE_FILES, writer
from nas.export.code_runs import compare_code
from nas.export.description import Trained
from nas.export.manifest import check_manifest
from nas.export.onnx.export import READERS, missing
from nas.export.onnx.writer import BACKBONE, DETECTOR, compare_backbone, compare_detector
from nas.models.detectors import Detector
from nas.models.detectors.transform import IMAGENET, ImageStatistics
from nas.models.weight_files import read_metadata


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


def verify(folder: Path, *, run_code: bool = False) -> tuple[Trained, Detector, list[Check]]:
    """Check everything of a bundle that needs no data set: its hashes first, then that each form
    is, or computes, what the detector does.

    Args:
        folder: that of the bundle.
        run_code: also run its Python files, in a process of their own, and compare what they
            compute. They can do whatever you can.

    Returns:
        What the bundle says of itself, its detector, and the checks in the order in which they were
        done.

    Raises:
        BundleError: something is wrong; the text names it.
    """
    names = check_manifest(folder)
    if strange := sorted({*names} - {*FILES, *OPTIONAL_FILES}):
        raise BundleError(f"bundle {str(folder)!r}: {strange[0]} is no file of a bundle")
    trained, detector = read_bundle(folder)
    checks = [
        Check("hashes", True, f"{len(names)} files as exported"),
        Check("detector.safetensors", True, "loads"),
        *_weights(folder, names, detector),
        *_described(folder, names, trained, detector),
    ]
    if run_code:
        for name, skipped in compare_code(folder, detector):
            checks.append(Check(name, not skipped, skipped or "run: same outputs"))
    return trained, detector, [*checks, *_onnx(folder, names, detector)]


def _weights(folder: Path, names: list[str], detector: Detector) -> Iterator[Check]:
    weights = read_weights(folder / "backbone.safetensors")
    expected = backbone_weights(detector.state_dict())
    if set(weights) != set(expected) or not all(
        torch.equal(x, expected[name]) for name, x in weights.items()
    ):
        raise BundleError("backbone.safetensors has other weights than detector.safetensors")
    metadata = read_metadata(folder / "backbone.safetensors")
    for key, value in _statistics(detector).metadata().items():
        if metadata.get(key, value) != value:
            raise BundleError(f"backbone.safetensors has another {key} than detector.safetensors")
    yield Check("backbone.safetensors", True, "the detector's weights")
    if LAST_WEIGHTS in names:
        if set(read_weights(folder / LAST_WEIGHTS)) != set(detector.state_dict()):
            raise BundleError(f"{LAST_WEIGHTS} has other tensors than detector.safetensors")
        yield Check(LAST_WEIGHTS, True, "the detector's tensors")


def _described(
    folder: Path, names: list[str], trained: Trained, detector: Detector
) -> Iterator[Check]:
    """Code, model card and backbone.yaml beside what this version writes, which another version's
    differ from.
    """
    written_by = read_yaml(folder / "detector.yaml").get("written_by")
    for name, text in described_files(trained, _statistics(detector)).items():
        if name in names and (folder / name).read_bytes() == text.encode():
            yield Check(name, True, "as this version writes it")
        elif written_by == writer():
            raise BundleError(f"{name} is not what this version writes for detector.yaml")
        else:
            said = "of another version, or changed: not compared"
            yield Check(name, False, f"{said}, not run" if name in CODE_FILES else said)


def _statistics(detector: Detector) -> ImageStatistics:
    return ImageStatistics.of_weights(detector.state_dict()) or IMAGENET


def _onnx(folder: Path, names: list[str], detector: Detector) -> Iterator[Check]:
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
