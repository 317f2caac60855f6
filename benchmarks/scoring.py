"""COCO's figures by hotcoco, as the service computes them, beside pycocotools.

    python benchmarks/scoring.py --out benchmarks/results/scoring.json

Made boxes and masks on made images, in one process; both ways read the same lists. The differences
of the twelve figures and of the mAP of each class are given too.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import astuple
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from nas.evaluation import coco
from nas.evaluation.coco import by_hotcoco, by_pycocotools, coco_metrics

SIDE, CLASSES, OBJECTS = 640, 80, 7  # of an image


def truth(images: int, rng: np.random.Generator) -> dict[str, Any]:
    """Boxes of COCO's sizes, a tenth of them crowds."""
    sides = np.exp(rng.normal(4, 1, (images * OBJECTS, 2))).clip(4, SIDE / 2)
    corners = rng.uniform(0, SIDE - sides)
    return {
        "images": [{"id": i, "width": SIDE, "height": SIDE} for i in range(1, images + 1)],
        "categories": [{"id": c, "name": str(c)} for c in range(1, CLASSES + 1)],
        "annotations": [
            {
                "id": number,
                "image_id": 1 + number // OBJECTS,
                "category_id": int(rng.integers(1, CLASSES + 1)),
                "bbox": [*corner.tolist(), *side.tolist()],
                "area": float(side.prod()),
                "iscrowd": int(rng.random() < 0.1),
            }
            for number, (corner, side) in enumerate(zip(corners, sides, strict=True))
        ],
    }


def found(content: dict[str, Any], count: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Half of the detections are moved objects, half are anywhere."""
    annotations, results = content["annotations"], []
    for _ in range(count):
        source = annotations[rng.integers(len(annotations))]
        x, y, w, h = source["bbox"]
        moved = rng.random() < 0.5
        x, y = (x, y) if moved else rng.uniform(0, SIDE / 2, 2).tolist()
        box = [x + rng.normal(0, 0.1) * w, y + rng.normal(0, 0.1) * h, w, h]
        kind = source["category_id"] if moved else int(rng.integers(1, CLASSES + 1))
        score = float(rng.random() * (1 if moved else 0.7))
        key = {"image_id": source["image_id"], "category_id": kind}
        results.append({**key, "bbox": box, "score": score})
    return results


def with_masks(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each entry with an ellipse in its box."""
    circle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    outlines = []
    for entry in entries:
        x, y, w, h = entry["bbox"]
        points = [x + w / 2 * (1 + np.cos(circle)), y + h / 2 * (1 + np.sin(circle))]
        outlines.append(np.stack(points, axis=1).ravel().tolist())
    codes = [coco_mask.frPyObjects([outline], SIDE, SIDE)[0] for outline in outlines]
    masks = [{"size": [SIDE, SIDE], "counts": code["counts"].decode()} for code in codes]
    return [{**e, "segmentation": mask} for e, mask in zip(entries, masks, strict=True)]


def compare(content: dict[str, Any], results: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """Time both, and give their largest difference."""
    times, figures = {}, []
    for engine in (by_hotcoco, by_pycocotools):
        coco.evaluation_engine = lambda engine=engine: engine  # type: ignore[misc]
        start = time.perf_counter()
        metrics = coco_metrics(content, results, kind)
        times[engine.__name__.removeprefix("by_")] = time.perf_counter() - start
        rows = [*astuple(metrics)[:12], *metrics.map_per_class.values()]
        figures.append([np.nan if row is None else row for row in rows])
    assert np.array_equal(*map(np.isnan, figures))
    return {
        "iou_type": kind,
        "images": len(content["images"]),
        "detections": len(results),
        **{f"{name}_s": round(seconds, 3) for name, seconds in times.items()},
        "ratio": round(times["pycocotools"] / times["hotcoco"], 1),
        "largest_difference": float(np.nanmax(np.abs(np.subtract(*figures)))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=500_000)
    parser.add_argument("--masks", type=int, default=500, help="images of the part with masks")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rng, rows = np.random.default_rng(0), []
    content = truth(args.images, rng)
    rows.append(compare(content, found(content, args.detections, rng), "bbox"))
    content = truth(args.masks, rng)
    results = with_masks(found(content, args.detections * args.masks // args.images, rng))
    content["annotations"] = with_masks(content["annotations"])
    rows.append(compare(content, results, "segm"))
    for row in rows:
        print(json.dumps(row))
    if args.out:
        machine = {"python": platform.python_version(), "processor": platform.machine()}
        libraries = {name: version(name) for name in ("hotcoco", "pycocotools", "numpy")}
        args.out.write_text(json.dumps({**machine, **libraries, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
