"""A bundle: one trained candidate as a folder, in forms that load elsewhere; and its way back.

backbone.yaml          layout, dimensions, figures, origin
backbone.py            plain torch and torchvision
backbone.safetensors   its weights
detector.yaml          what rebuilds the detector
detector.safetensors   weights of the whole detector
last.safetensors       those of its last epoch, where the best one's and these were kept
backbone.onnx          for any batch and image size
detector.onnx          one image of any size, to its detections
mmdet_config.py        for mmdetection 3
mmdet_backbone.py      the backbone as its module
mmdet_detector.py      what else mmdetection needs, and the names of the weights there
README.md              the model card
manifest.json          hashes of all files
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from nas.artifacts.paths import LAST_WEIGHTS
from nas.config.parsing import parse_model, read_yaml
from nas.config.recipe import Recipe
from nas.config.sections import CalibrationSpec, DetectorSpec
from nas.errors import BundleError, UserError
from nas.export.code_files import CODE_FILES, code_files, writer
from nas.export.description import Trained
from nas.export.manifest import FORMAT, MANIFEST, check_manifest, write_manifest
from nas.export.model_card import model_card
from nas.export.onnx.writer import write_onnx
from nas.export.stated import Stated
from nas.models.backbones import backbone_dims
from nas.models.detectors import Detector, build_detector
from nas.models.detectors.transform import IMAGENET, ImageStatistics
from nas.utils.folders import atomic_folder
from search_spaces.layout import Layout
from search_spaces.regular_files import read_regular

FILES = (
    "backbone.yaml",
    "backbone.safetensors",
    "detector.safetensors",
    "detector.yaml",
    "README.md",
    *CODE_FILES,
    MANIFEST,
)
ONNX_FILES = ("backbone.onnx", "detector.onnx")  # where their packages are installed
OPTIONAL_FILES = (*ONNX_FILES, LAST_WEIGHTS)
BACKBONE_PREFIX = "backbone.backbone."
READ_FORMATS = (1, FORMAT)  # 1 had no manifest, no ONNX and nothing for mmdetection


def write_bundle(folder: Path, trained: Trained, weights: Path, *, onnx: bool = True) -> list[str]:
    """Write the files of a bundle; the folder appears whole or not at all.

    Args:
        folder: a new or empty folder, or that of an older bundle, which is replaced: of one whose
            files are all as its manifest has them.
        trained: the candidate.
        weights: safetensors file with the weights of the detector; those of its last epoch lie
            beside it where they were kept too.
        onnx: write the ONNX files too, each compared with the network and left out where it
            differs; takes a minute or two.

    Returns:
        Sentences on the files that were left out, and why.

    Raises:
        BundleError: the folder holds other files, or the weights are not there.
    """
    check_target(folder)
    with atomic_folder(folder, last=MANIFEST) as partial:
        statistics = _write_weights(partial, read_weights(weights))
        if (last := weights.parent / LAST_WEIGHTS).exists():
            (partial / LAST_WEIGHTS).write_bytes(save(read_weights(last)))
        described = partial / "detector.yaml"
        described.write_text(_detector_yaml(trained))
        left_out = ["ONNX was not asked for."]
        if onnx:
            left_out = write_onnx(partial, read_bundle(partial)[1])
        described.write_text(_detector_yaml(replace(trained, left_out=tuple(left_out))))
        for name, text in described_files(read_description(partial), statistics).items():
            (partial / name).write_text(text)
        write_manifest(partial)
    return left_out


def described_files(trained: Trained, statistics: ImageStatistics) -> dict[str, str]:
    """Write the files of a bundle that follow from its detector.yaml and its weights.

    Args:
        trained: as `read_description` gives it.
        statistics: what its images are normalised by.

    Returns:
        Their texts, by their names: the code, backbone.yaml and the model card.
    """
    return {
        **code_files(trained, statistics),
        "backbone.yaml": _yaml_text(_backbone_description(trained, statistics)),
        "README.md": model_card(trained, statistics),
    }


def check_target(folder: Path, flag: str = "--out") -> None:
    """Find out early whether a bundle can be written to a folder.

    Args:
        folder: where; it need not exist.
        flag: what named the folder, for the error.

    Raises:
        BundleError: it is a file, or holds files other than a bundle's as it was exported.
    """
    if folder.exists() and not folder.is_dir():
        raise BundleError(f"{flag} {str(folder)!r} is a file; name a folder")
    inside = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if strangers := [name for name in inside if name not in {*FILES, *OPTIONAL_FILES}]:
        raise BundleError(
            f"{flag} {str(folder)!r} holds other files ({strangers[0]}); name a new folder"
        )
    if inside:
        try:
            check_manifest(folder)
        except BundleError as error:
            raise BundleError(
                f"{flag} {str(folder)!r} holds files that are no bundle as it was exported "
                f"({error}); name a new folder"
            ) from None


def read_description(folder: Path) -> Trained:
    """Read what a bundle says of itself, from its detector.yaml; no weights.

    Raises:
        SpecError: there is no readable detector.yaml.
        BundleError: it has a newer format, or is damaged.
    """
    description = read_yaml(folder / "detector.yaml")
    if description.get("format") not in READ_FORMATS:
        raise BundleError(
            f"bundle {str(folder)!r} has format {description.get('format')!r}; this version reads "
            f"1 and {FORMAT}"
        )
    try:
        stated = parse_model(Stated, description)
        return Trained(
            layout=Layout.from_dict(description["layout"]),
            detector=parse_model(DetectorSpec, description["detector"]),
            recipe=parse_model(Recipe, description["recipe"]),
            calibration=parse_model(CalibrationSpec, description["calibration"]),
            categories=stated.categories,
            figures=description["figures"],
            origin=description["origin"],
            request=description.get("request", {}),
            left_out=stated.left_out,
        )
    except (KeyError, TypeError, UserError) as error:
        raise BundleError(f"bundle {str(folder)!r} is damaged: detector.yaml: {error}") from None


def read_bundle(folder: Path) -> tuple[Trained, Detector]:
    """Rebuild the detector of a bundle.

    Returns:
        What the bundle says of itself, and the detector with its trained weights, on the CPU, in
        evaluation mode.

    Raises:
        SpecError: there is no readable detector.yaml.
        BundleError: the bundle has a newer format, or is damaged.
    """
    trained, weights = read_description(folder), read_weights(folder / "detector.safetensors")
    try:
        _check_sizes(trained, weights)
        detector = _detector(trained)
        detector.load_state_dict(weights)
        _check_numbers(weights)
    except (RuntimeError, TypeError, ArithmeticError, ValueError) as error:
        raise BundleError(
            f"bundle {str(folder)!r} is damaged: {' '.join(str(error).split())[:300]}"
        ) from None
    return trained, detector.eval()


def _detector(trained: Trained) -> Detector:
    return build_detector(trained.layout, trained.detector, len(trained.categories))


def _check_sizes(trained: Trained, weights: dict[str, Tensor]) -> None:
    """Find out that the weights are those of a detector before it takes memory: a description can
    ask for any number of blocks and channels.

    Raises:
        RuntimeError: they are not, as PyTorch says it.
    """
    if (blocks := sum(trained.layout.depths)) > len(weights):
        raise RuntimeError(f"{len(weights)} tensors are no weights of {blocks} blocks")
    with torch.device("meta"):
        _detector(trained).load_state_dict(weights, assign=True)


def _check_numbers(weights: dict[str, Tensor]) -> None:
    """Find out that weights are of a training that came to something.

    Raises:
        ValueError: some are not finite, or no image can be normalised by them.
    """
    ImageStatistics.of_weights(weights)
    for name, weight in weights.items():
        if weight.is_floating_point() and not weight.isfinite().all():
            raise ValueError(f"{name} has values that are not finite")


def _backbone_description(trained: Trained, statistics: ImageStatistics) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "name": str(trained.layout),
        "layout_id": trained.layout.layout_id,
        "layout": trained.layout.to_dict(),
        "dimensions": backbone_dims(trained.layout),
        "image_mean": list(statistics.mean),
        "image_std": list(statistics.std),
        "figures": trained.figures,
        "origin": trained.origin,
    }


def _detector_yaml(trained: Trained) -> str:
    sections = {
        name: getattr(trained, name).model_dump(mode="json")
        for name in ("detector", "recipe", "calibration")
    }
    content = {
        "format": FORMAT,
        "written_by": writer(),
        "layout": trained.layout.to_dict(),
        **sections,
        "categories": list(trained.categories),
        "figures": trained.figures,
        "origin": trained.origin,
        "request": trained.request,
        "left_out": list(trained.left_out),
    }
    return _yaml_text(content)


def backbone_weights(state: dict[str, Any]) -> dict[str, Any]:
    """Pick a detector's weights of its backbone, by the names that they have in the backbone."""
    return {
        name.removeprefix(BACKBONE_PREFIX): weight
        for name, weight in state.items()
        if name.startswith(BACKBONE_PREFIX)
    }


def _write_weights(folder: Path, state: dict[str, Any]) -> ImageStatistics:
    """Those of the detector and of its backbone, which has no place for the statistics of its
    images but the metadata; returns them.
    """
    statistics = ImageStatistics.of_weights(state) or IMAGENET
    (folder / "detector.safetensors").write_bytes(save(state))
    (folder / "backbone.safetensors").write_bytes(
        save(backbone_weights(state), {"format": "pt", **statistics.metadata()})
    )
    return statistics


def _yaml_text(content: dict[str, Any]) -> str:
    return yaml.safe_dump(content, sort_keys=False, width=120)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a file of tensors.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        BundleError: it is not there, or damaged.
    """
    try:
        return load(read_regular(path))
    except FileNotFoundError:
        raise BundleError(
            f"weights {str(path)!r} are not there: a search keeps those of the best few "
            "(run.keep_best)"
        ) from None
    except (SafetensorError, OSError, ValueError) as error:
        raise BundleError(f"weights {str(path)!r} cannot be read: {error}") from None
