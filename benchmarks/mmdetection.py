"""A bundle in mmdetection beside what `nas predict` found: the largest differences.

    nas predict BUNDLE IMAGES... --score 0 --out found.json
    PYTHONPATH=BUNDLE python benchmarks/mmdetection.py BUNDLE found.json

The second command runs in an environment with mmdetection 3 and without scratch-nas. It reads the
configuration and the weights of the bundle, detects in the images that found.json names, and pairs
each detection of found.json with the nearest one of its class. Boxes are compared in pixels of the
image, masks by their IoU. Exit code 1: a difference of a box relative to the image's longer side,
or of a score, is above 1e-3, or detections are without a partner.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from types import BuiltinFunctionType
from typing import Any

import mmcv
import mmdet
import numpy as np
import pycocotools.mask as coco_mask
import torch
from mmcv import _ext as operators
from mmdet.apis import inference_detector, init_detector

TOLERANCE = 1e-3


@dataclass
class Differences:
    """The largest so far."""

    images: int = 0
    detections: int = 0
    alone: int = 0
    pixels: float = 0.0
    relative: float = 0.0
    score: float = 0.0
    least_iou: float = 1.0

    def add(self, ours: list[dict[str, Any]], theirs: dict[str, Any], longer_side: int) -> None:
        """Compare the detections of one image."""
        self.images, self.detections = self.images + 1, self.detections + len(ours)
        free = set(range(len(theirs["scores"])))
        for each in ours:
            place = nearest(each, theirs, free)
            if place is None:
                self.alone += 1
                continue
            free.remove(place)
            pixels = float(np.abs(corners(each) - theirs["bboxes"][place]).max())
            self.pixels = max(self.pixels, pixels)
            self.relative = max(self.relative, pixels / longer_side)
            self.score = max(self.score, abs(each["score"] - float(theirs["scores"][place])))
            if "segmentation" in each:
                self.least_iou = min(self.least_iou, overlap(each, theirs["masks"][place]))
        self.alone += len(free)

    def passed(self) -> bool:
        """Whether all is within the tolerance."""
        return not self.alone and max(self.relative, self.score) <= TOLERANCE


def corners(detection: dict[str, Any]) -> Any:
    """x1, y1, x2, y2."""
    x, y, width, height = detection["bbox"]
    return np.array([x, y, x + width, y + height])


def nearest(detection: dict[str, Any], theirs: dict[str, Any], free: set[int]) -> int | None:
    """Index of the free detection of the same class with the least difference of box and score."""
    same = [place for place in free if theirs["labels"][place] == detection["category_id"] - 1]
    box, score = corners(detection), detection["score"]
    return min(
        same,
        key=lambda place: (
            np.abs(box - theirs["bboxes"][place]).max() + abs(score - theirs["scores"][place])
        ),
        default=None,
    )


def overlap(detection: dict[str, Any], mask: Any) -> float:
    """IoU of two masks; two empty ones are the same."""
    ours = coco_mask.decode(detection["segmentation"]).astype(bool)
    union = (ours | mask).sum()
    return float((ours & mask).sum() / union) if union else 1.0


def main(bundle: Path, found: Path) -> Differences:
    """Detect by mmdetection what `nas predict` has written to `found`, and compare."""
    content = json.loads(found.read_text())
    by_image = defaultdict(list)
    for detection in content["annotations"]:
        by_image[detection["image_id"]].append(detection)
    config, weights = str(bundle / "mmdet_config.py"), str(bundle / "detector.safetensors")
    model = init_detector(config, weights, device="cpu")
    differences = Differences()
    for image in content["images"]:
        theirs = inference_detector(model, image["file_name"]).pred_instances.numpy()
        longer_side = max(image["width"], image["height"])
        differences.add(by_image[image["id"]], theirs, longer_side)
    return differences


def versions() -> dict[str, Any]:
    """What ran; whether suppression and RoIAlign were compiled or a stand-in in Python."""
    compiled = all(
        isinstance(each, BuiltinFunctionType)
        for each in (operators.nms, operators.roi_align_forward)
    )
    found = {"mmdet": mmdet.__version__, "mmcv": mmcv.__version__, "torch": torch.__version__}
    return {**found, "compiled_operators": compiled}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("found", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("DATA_ROOT", "unused")
    result = main(options.bundle, options.found)
    print(json.dumps({"bundle": options.bundle.name, **asdict(result), **versions()}))
    sys.exit(not result.passed())
