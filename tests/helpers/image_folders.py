"""Folders of images by class, made on the spot from scikit-learn's handwritten digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def make_image_folder(root: Path, *, classes: int, train: int, val: int, size: int) -> Path:
    """`{train,val}/digit-K/*.png` of `size` x `size` pixels, `train` and `val` images a class, no
    digit in both.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    for label in range(classes):
        found = np.flatnonzero(digits.target == label)
        for split, chosen in (("train", found[:train]), ("val", found[-val:])):
            folder = root / split / f"digit-{label}"
            folder.mkdir(parents=True)
            for index in chosen:
                image = Image.fromarray((digits.images[index] * 255 / 16).astype(np.uint8))
                image.resize((size, size), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return root
