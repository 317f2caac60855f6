"""The detector of a bundle, scored on a data set."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from nas.config.recipe import Recipe
from nas.data.coco import CocoSplit
from nas.data.dataloader import loader_workers, make_loader
from nas.data.dataset import DetectionItem
from nas.data.samplers import EvalBatchSampler
from nas.data.split_source import GUESSED, Places
from nas.data.transforms import eval_transforms
from nas.data.validation import usable_splits
from nas.errors import UserError
from nas.evaluation.coco import evaluate
from nas.evaluation.confusion import ConfusionMatrix, confusion_matrix
from nas.evaluation.detections import write_results
from nas.evaluation.error_types import ErrorTypes, error_types
from nas.evaluation.visualization import write_drawings
from nas.export.bundle import read_bundle
from nas.export.description import Trained
from nas.reports import CocoMetrics
from nas.utils.device import default_device, tf32
from nas.utils.files import ensure_writable
from nas.utils.paths import localize
from nas.utils.progress import CountProgress


@dataclass(frozen=True)
class BundleScore:
    """What a bundle's detector scores on a split, and what it finds there.

    Args:
        trained: what the bundle says of itself.
        metrics: fractions 0 to 1.
        fps: images a second.
        images: how many images the split has.
        truth: the split as COCO instances.
        detections: COCO results, in the pixels of the split's images and with its ids.
    """

    trained: Trained
    metrics: CocoMetrics
    fps: float
    images: int
    truth: dict[str, Any] = field(repr=False)
    detections: list[dict[str, Any]] = field(repr=False)

    def confusion(self, iou: float = 0.5, score: float = 0.3) -> ConfusionMatrix:
        """Count what objects are found as; see `confusion_matrix`.

        Args:
            iou: from which a detection may be of an object, above 0.1, at most 1.
            score: from which a detection counts, 0 to 1.
        """
        return confusion_matrix(self.truth, self.detections, iou, score)

    def errors(self, iou: float = 0.5) -> ErrorTypes:
        """Sort what is wrong by the types of TIDE; see `error_types`.

        Args:
            iou: from which a detection is right, above 0.1, at most 1.
        """
        return error_types(self.truth, self.detections, iou)

    def write(self, out: str | Path) -> None:
        """Write the detections as COCO results, the list that `loadRes` of pycocotools reads.

        Args:
            out: a file that ends in `.json`.
        """
        write_results(Path(out), self.detections)


def score_bundle(
    bundle: Path,
    data: str,
    split: str,
    on_image: CountProgress,
    draw: Path | None = None,
    places: Places = GUESSED,
) -> BundleScore:
    """Score the detector of a bundle on this machine's GPU, or CPU.

    Args:
        bundle: its folder.
        data: folder or zip file of a data set with the bundle's categories, or its URL.
        split: name of the split.
        on_image: is told of every image that is checked.
        draw: a folder for all images, ground truth left, detections right.
        places: where the data set has files that would not be found.

    Raises:
        UserError: the bundle or the data cannot be used, or the categories differ.
    """
    trained, detector = read_bundle(bundle)
    root = localize(data)
    (checked,) = usable_splits(
        root, (split,), skip_broken=False, progress=on_image, places=places, masks=detector.masks
    )
    scored = checked.split
    _check_categories(scored, trained)
    if draw:
        ensure_writable(draw)
    device = torch.device(default_device())
    loader = eval_loader(scored, trained.recipe, device)
    with tf32(trained.recipe.tf32, device):
        metrics, detections, fps = evaluate(detector.to(device), loader, scored, device)
    if draw:
        write_drawings(draw, scored, detections)
    return BundleScore(trained, metrics, fps, len(scored.images), scored.to_coco(), detections)


def _check_categories(split: CocoSplit, trained: Trained) -> None:
    names = tuple(name for _, name in split.categories)
    if names != trained.categories:
        raise UserError(
            f"--data must have the bundle's categories ({', '.join(trained.categories)}); it has "
            f"{', '.join(names)}"
        )


def eval_loader(
    split: CocoSplit, recipe: Recipe, device: torch.device
) -> DataLoader[DetectionItem]:
    """Load the images of a split in order, each once, resized as the recipe scores them."""
    batches = EvalBatchSampler(split.images, recipe.micro_batch_size)
    return make_loader(split, eval_transforms(recipe), batches, loader_workers(recipe, device))
