"""A small real data set made on the spot: scikit-learn's handwritten digits on its two photographs.

Digits that appear in validation images never appear in training images, and the photographs are cut
apart in the same way: the left part is for training, the right part for validation.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nas.errors import DataError, MissingDependency
from nas.utils.folders import atomic_folder

PER_IMAGE = (2, 5)  # digits, both ends included
SIDE = (0.2, 0.45)  # of a digit, as a share of the image's side
TRAIN_SHARE = 0.75  # of the digits and of the width of the photographs
MAX_OVERLAP = 0.1  # of the smaller of two digits
STROKE = 0.25  # ink below this share of the full stroke does not count for the box


def make_digits(root: Path, *, train: int, val: int, size: int, seed: int) -> None:
    """Write a COCO-format data set of handwritten digits, ten classes.

    Args:
        root: a new folder, or an empty one.
        train: number of training images.
        val: number of validation images.
        size: height and width of the images in pixels.
        seed: decides the images.

    Raises:
        DataError: `root` exists and is not empty.
        MissingDependency: scikit-learn is not installed.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{str(root)!r} exists already: choose a new folder")
    digits, labels, photographs = _material()
    border = int(len(digits) * TRAIN_SHARE)
    chosen = {"train": (train, slice(0, border)), "val": (val, slice(border, None))}
    with atomic_folder(root) as partial:
        for split, (count, rows) in chosen.items():
            rng = np.random.default_rng([seed, split == "val"])
            grounds = [_part(photograph, split) for photograph in photographs]
            (partial / split).mkdir()
            coco = _write_split(
                partial / split, rng, count, size, digits[rows], labels[rows], grounds
            )
            (partial / f"instances_{split}.json").write_text(json.dumps(coco))


def _material() -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    try:
        from sklearn.datasets import load_digits, load_sample_images
    except ImportError:
        raise MissingDependency("scikit-learn", "digits") from None
    digits = load_digits()
    return digits.images / 16.0, digits.target, list(load_sample_images().images)


def _part(photograph: np.ndarray, split: str) -> np.ndarray:
    border = int(photograph.shape[1] * TRAIN_SHARE)
    return photograph[:, :border] if split == "train" else photograph[:, border:]


def _write_split(
    folder: Path,
    rng: np.random.Generator,
    count: int,
    size: int,
    digits: np.ndarray,
    labels: np.ndarray,
    grounds: list[np.ndarray],
) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id in range(1, count + 1):
        canvas = _background(rng, grounds[rng.integers(len(grounds))], size)
        for box, label in _paste_digits(rng, canvas, digits, labels):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(label) + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
        name = f"{image_id:05d}.jpg"
        Image.fromarray(canvas.round().astype(np.uint8)).save(folder / name, quality=92)
        images.append({"id": image_id, "file_name": name, "width": size, "height": size})
    categories = [{"id": digit + 1, "name": str(digit)} for digit in range(10)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _background(rng: np.random.Generator, photograph: np.ndarray, size: int) -> np.ndarray:
    """A random square of the photograph at `size`, [size, size, 3] floats in 0 to 255."""
    height, width = photograph.shape[:2]
    side = int(rng.integers(min(height, width) // 2, min(height, width) + 1))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    crop = Image.fromarray(photograph[top : top + side, left : left + side]).resize(
        (size, size), Image.Resampling.BILINEAR
    )
    return np.asarray(crop, dtype=np.float64).copy()


def _paste_digits(
    rng: np.random.Generator, canvas: np.ndarray, digits: np.ndarray, labels: np.ndarray
) -> list[tuple[list[int], int]]:
    """Draw digits in random colours where they hardly overlap; their boxes (x, y, width, height)
    and labels.
    """
    size = len(canvas)
    pasted: list[tuple[list[int], int]] = []
    for _ in range(rng.integers(PER_IMAGE[0], PER_IMAGE[1] + 1)):
        index, side = rng.integers(len(digits)), int(rng.uniform(*SIDE) * size)
        ink = Image.fromarray((digits[index] * 255).astype(np.uint8)).resize(
            (side, side), Image.Resampling.BICUBIC
        )
        alpha = np.asarray(ink, dtype=np.float64) / 255
        rows, columns = (
            np.where(alpha.max(axis=1) > STROKE)[0],
            np.where(alpha.max(axis=0) > STROKE)[0],
        )
        for _ in range(20):
            x, y = (int(v) for v in rng.integers(0, size - side + 1, 2))
            box = [
                x + int(columns[0]),
                y + int(rows[0]),
                int(np.ptp(columns)) + 1,
                int(np.ptp(rows)) + 1,
            ]
            if all(_overlap(box, other) < MAX_OVERLAP for other, _ in pasted):
                region = canvas[y : y + side, x : x + side]
                colour = _contrasting(rng, region.mean(axis=(0, 1)))
                region += alpha[:, :, None] * (colour - region)
                pasted.append((box, int(labels[index])))
                break
    return pasted


def _contrasting(rng: np.random.Generator, ground: np.ndarray) -> np.ndarray:
    """A light colour on dark ground, a dark one on light ground."""
    return rng.uniform(0, 70, 3) if ground.mean() > 128 else rng.uniform(185, 255, 3)


def _overlap(a: list[int], b: list[int]) -> float:
    """Intersection over the smaller area."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(0, width) * max(0, height) / min(a[2] * a[3], b[2] * b[3])
