"""A data set of COCO's size: seconds and memory of its first check, of the next, and of a worker.

    python benchmarks/large_data.py --data DIR --work FOLDER --out RESULT.json

The data set is made of the images of DIR, as hard links, with as many boxes and polygons as COCO
has; the first check decodes each of these few images once, which for COCO's own takes longer. Each
step is a process of its own, with a cache of its own. `--scale 0.1` makes a tenth.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from nas.data.annotation_files import read_annotations

SIZES = {"train": (118_287, 862_000), "val": (5_000, 37_000)}
SHAPES = 200  # different boxes of an image's size
POINTS = 24  # of a polygon: COCO's annotation file has 460 bytes for each box
CHECK = """
from nas.config.spec import load_spec
from nas.data.splits import read_data
from nas.data.split_index import write_index
from pathlib import Path
keys = {"data.root": "DATA", "data.train_fraction": FRACTION, "recipe.name": "tiny"}
spec = load_spec(None, keys)
splits, facts = read_data(spec.data, spec.recipe)
for name, split in splits.present().items():
    write_index(Path("DATA") / f"index-{name}.npz", split)
print(facts.fingerprint, facts.train_boxes, facts.val_boxes)
"""
WORKER = """
import torch
from pathlib import Path
from nas.config.spec import load_spec
from nas.data.dataset import DetectionDataset
from nas.data.split_index import read_index
from nas.data.transforms import train_transforms
recipe = load_spec(None, {"data.root": "DATA", "recipe.name": "tiny"}).recipe
kept = [DetectionDataset(read_index(Path("DATA") / f"index-{name}.npz"), train_transforms(recipe))
        for name in ("train", "val")]
print(len(kept[0]))
"""


def make(source: Path, root: Path, scale: float) -> None:
    """Hard links to the images of `source`, and annotation files with boxes and polygons."""
    rng = np.random.default_rng(0)
    for split, (images, boxes) in SIZES.items():
        images, boxes = max(1, round(images * scale)), max(1, round(boxes * scale))
        listed = read_annotations(source / f"instances_{split}.json")
        (root / split).mkdir(parents=True)
        originals = listed["images"]
        shapes = [[shape(image, rng) for _ in range(SHAPES)] for image in originals]
        records = []
        for number in range(1, images + 1):
            image = originals[number % len(originals)]
            name = f"{number:012d}.jpg"
            link(source / split / image["file_name"], root, root / split / name)
            size = {"width": image["width"], "height": image["height"]}
            records.append({"id": number, "file_name": name, **size})
        kinds = rng.choice([category["id"] for category in listed["categories"]], boxes).tolist()
        chosen = rng.integers(SHAPES, size=boxes).tolist()
        with (root / f"instances_{split}.json").open("w") as file:
            head = {"images": records, "categories": listed["categories"]}
            file.write(json.dumps(head)[:-1] + ', "annotations": [')
            for number, (kind, which) in enumerate(zip(kinds, chosen, strict=True), start=1):
                image_id = 1 + number % images
                text = shapes[image_id % len(originals)][which]
                ids = f'"image_id": {image_id}, "category_id": {kind}, "id": {number}}}'
                file.write((", " if number > 1 else "") + text + ids)
            file.write("]}")


def link(source: Path, root: Path, path: Path) -> None:
    """A hard link to an image; a file system allows some ten thousand to one file, then a copy is
    linked to.
    """
    copy = root / "originals" / f"{source.parent.name}-{source.name}"
    if not copy.exists():
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(source.read_bytes())
    try:
        os.link(copy, path)
    except OSError as error:
        if error.errno != errno.EMLINK:
            raise
        copy.unlink()
        link(source, root, path)


def shape(image: dict[str, Any], rng: np.random.Generator) -> str:
    """A box with a polygon around its middle: the beginning of an annotation's JSON."""
    width, height = image["width"], image["height"]
    w, h = rng.uniform(0.05, 0.4, 2) * (width, height)
    x, y = rng.uniform(0, (width - w, height - h))
    angles = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    outline = [x + w / 2 * (1 + np.cos(angles)), y + h / 2 * (1 + np.sin(angles))]
    entry = {
        "segmentation": [np.stack(outline, axis=1).ravel().round(2).tolist()],
        "area": round(w * h * 0.78, 4),
        "iscrowd": 0,
        "bbox": [round(value, 2) for value in (x, y, w, h)],
    }
    return json.dumps(entry)[:-1] + ", "


def step(name: str, program: str, root: Path, fraction: float) -> dict[str, Any]:
    """Run a program in a process of its own."""
    text = program.replace("DATA", str(root)).replace("FRACTION", str(fraction))
    environment = {**os.environ, "XDG_CACHE_HOME": str(root / "cache")}
    peak = f"{text}\nimport resource\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    start = time.perf_counter()
    command = [sys.executable, "-c", peak]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    *said, peak_kib = done.stdout.split()
    elapsed_s = round(time.perf_counter() - start, 1)
    print(name, elapsed_s, "s,", round(int(peak_kib) / 2**20, 2), "GiB;", *said, flush=True)
    return {"step": name, "elapsed_s": elapsed_s, "peak_gib": round(int(peak_kib) / 2**20, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="a new folder, on DIR's disk")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--fraction", type=float, default=1.0, help="data.train_fraction")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    make(args.data, args.work, args.scale)
    steps = [("first check", CHECK), ("next check", CHECK), ("worker", WORKER)]
    steps.append(("imports alone", "import torch, nas.data.dataset, nas.config.spec"))
    rows = [step(name, program, args.work, args.fraction) for name, program in steps]
    if args.out:
        about = {
            "scale": args.scale,
            "fraction": args.fraction,
            "python": platform.python_version(),
        }
        args.out.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
