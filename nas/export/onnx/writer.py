"""The ONNX files of a bundle: written, and compared with the network that they are of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.errors import BundleError, UserError
from nas.export.onnx.detector import detector_onnx
from nas.export.onnx.export import SIZES, OnnxModel, backbone_onnx, missing
from nas.models.detectors import Detector

TOLERANCE = 1e-4  # of the largest number of a map, and of 1 where that is smaller
MATCHED = 0.95  # share of detections
MASK_TOLERANCE = 1e-2  # of the probability of a cell
BACKBONE, DETECTOR = "backbone.onnx", "detector.onnx"


def write_onnx(folder: Path, detector: Detector) -> list[str]:
    """Write the ONNX files of a detector, and compare them with it; one that cannot be written or
    run, or gives something else, is not kept.

    Args:
        folder: of the files.
        detector: in evaluation mode.

    Returns:
        What is not there, and why.
    """
    if absent := missing():
        return [
            f"ONNX files need the package {absent[0]}: pip install 'scratch-nas[onnx]', and "
            "export again."
        ]
    templates: dict[str, Any] = {}
    backbone = detector.backbone.backbone
    return [
        *_kept_if_same(
            folder / BACKBONE,
            lambda: backbone_onnx(backbone, templates),
            lambda path: compare_backbone(path, detector),
        ),
        *_kept_if_same(
            folder / DETECTOR,
            lambda: detector_onnx(detector, templates),
            lambda path: compare_detector(path, detector),
        ),
    ]


def _kept_if_same(
    path: Path, write: Callable[[], bytes], compare: Callable[[Path], None]
) -> list[str]:
    """Write a file, and take it away again, saying so, where it differs from the network."""
    try:
        path.write_bytes(write())
        compare(path)
    except BundleError as error:
        path.unlink(missing_ok=True)
        return [f"{path.name} was left out: {error}."]
    return []


def compare_backbone(path: Path, detector: Detector) -> None:
    """Compare an exported backbone with its network: their maps at several image sizes.

    Raises:
        BundleError: they differ, or the file cannot be run.
    """
    with running(path):
        model = OnnxModel(path)
        for images in random_images():
            with torch.no_grad():
                expected = detector.backbone.backbone(images)
            same(path.name, model(images), expected)


def compare_detector(path: Path, detector: Detector) -> None:
    """Compare an exported detector with its network: their detections, an image at a time.

    Raises:
        BundleError: the file cannot be run, or more than a few have no counterpart. Those at the
            edge of a threshold may: rounding decides there.
    """
    with running(path):
        model = OnnxModel(path)
        for images in random_images():
            with torch.no_grad():
                (expected,) = detector([images[0]])
            wanted = [expected[name] for name in model.outputs]
            if matched_share(model(images[:1]), wanted) < MATCHED:
                raise BundleError(f"{path.name} gives other detections than the network")


@contextmanager
def running(path: Path) -> Iterator[None]:
    """Errors while a file is run as one line: ONNX Runtime has some of its own, and what a file
    gives may be of any number and kind.

    Raises:
        BundleError: instead of them.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise BundleError(f"{path.name} cannot be run as the network: {said}") from None


def matched_share(given: list[Tensor], expected: list[Tensor]) -> float:
    """Share, 0 to 1, of the longer of two lists of detections that have a counterpart in the other.

    Args:
        given: boxes [N, 4], scores [N], labels [N], and masks [N, S, S] where there are any.
        expected: the same of M detections.
    """
    longest, shortest = max(len(given[0]), len(expected[0])), min(len(given[0]), len(expected[0]))
    if not shortest:
        return float(longest == 0)
    near = torch.isclose(given[0][:, None], expected[0][None], rtol=1e-3, atol=1e-2).all(dim=2)
    near &= (given[1][:, None] - expected[1][None]).abs() <= 1e-3
    near &= given[2][:, None] == expected[2][None]
    for masks, others in zip(given[3:], expected[3:], strict=True):
        near &= torch.cdist(masks.flatten(1), others.flatten(1), p=torch.inf) <= MASK_TOLERANCE
    return min(int(near.any(dim=0).sum()), int(near.any(dim=1).sum())) / longest


def random_images() -> list[Tensor]:
    """Make a batch of each of the `SIZES`, the same every time."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.rand(batch, 3, height, width, generator=generator) for batch, height, width in SIZES
    ]


def same(name: str, given: list[Tensor], expected: list[Tensor]) -> None:
    """Compare outputs of a file with those of the network.

    Args:
        name: of the file, for the error.
        given: what the file gives.
        expected: what the network gives.

    Raises:
        BundleError: their number, shapes or values differ.
    """
    pairs = (
        zip(given, expected, strict=True)
        if len(given) == len(expected)
        else iter([(torch.zeros(0), torch.zeros(1))])
    )
    if not all(
        x.shape == y.shape and torch.allclose(x, y, rtol=0, atol=TOLERANCE * _size(y))
        for x, y in pairs
    ):
        raise BundleError(
            f"{name} gives other outputs than the network, by more than {TOLERANCE:g} of them"
        )


def _size(outputs: Tensor) -> float:
    """Maps of a network that has hardly been trained reach a thousand, and round accordingly."""
    return max(1.0, float(outputs.abs().max())) if outputs.numel() else 1.0
