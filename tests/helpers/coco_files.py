"""A small data set in COCO's form, to be written with a fault."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

GOOD: dict[str, Any] = {
    "images": [
        {"id": 1, "file_name": "a.png", "width": 60, "height": 40},
        {"id": 2, "file_name": "b.png", "width": 60, "height": 40},
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 3,
            "bbox": [5, 6, 20, 10],
            "area": 150,
            "iscrowd": 0,
        },
        {
            "id": 2,
            "image_id": 1,
            "category_id": 7,
            "bbox": [0, 0, 60, 40],
            "area": 2400,
            "iscrowd": 1,
        },
        {
            "id": 3,
            "image_id": 2,
            "category_id": 3,
            "bbox": [1.5, 2.5, 3.25, 4.75],
            "area": 15.4375,
            "iscrowd": 0,
        },
    ],
    "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
}


def write(root: Path, coco: dict[str, Any], split: str = "train") -> Path:
    folder = root / split
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a.png", "b.png"):  # no two are equal
        shade = sum(f"{split}/{name}".encode()) % 256
        Image.fromarray(np.full((40, 60, 3), shade, dtype=np.uint8)).save(folder / name)
    (root / f"instances_{split}.json").write_text(json.dumps(coco))
    return root


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """`annotations.0.bbox` set to a value, or taken away."""

    def act(coco: dict[str, Any]) -> None:
        *way, last = path.split(".")
        target: Any = coco
        for step in way:
            target = target[int(step) if step.isdigit() else step]
        if value is KeyError:
            del target[last]
        else:
            target[int(last) if last.isdigit() else last] = value

    return act


def append(section: str, entry: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    return lambda coco: coco[section].append(entry)


def written(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    coco = copy.deepcopy(GOOD)
    change(coco)
    return write(folder, coco)


def changed_copy(source: Path, root: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of a data set whose annotation files are changed."""
    shutil.copytree(source, root)
    for file in sorted(root.glob("instances_*.json")):
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))
    return root
