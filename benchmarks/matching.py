"""Matching of anchors with objects a part at a time beside all with all: seconds and memory.

    python benchmarks/matching.py --out benchmarks/results/matching.json

The anchors are Faster R-CNN's of an image of 800 x 1344. Both take turns, and the medians count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from nas.config.sections import DetectorSpec
from nas.models.detectors import build_detector
from nas.models.detectors.matching import match_boxes
from nas.profiling.memory.measurement import highest_bytes, random_target
from nas.profiling.memory.recorder import Recorder
from nas.utils.device import hardware
from search_spaces.layout import Layout

HEIGHT, WIDTH = 800, 1344
STRIDES = (4, 8, 16, 32, 64)
MATCHER = Matcher(0.7, 0.3, allow_low_quality_matches=True)


def anchors() -> Tensor:
    """[N, 4] of one image."""
    detector: Any = build_detector(
        Layout.parse("C1-C1-C1-C1@16"), DetectorSpec(name="faster_rcnn"), 80
    )
    images = ImageList(torch.zeros(1, 3, HEIGHT, WIDTH), [(HEIGHT, WIDTH)])
    maps = [torch.zeros(1, 1, HEIGHT // stride, WIDTH // stride) for stride in STRIDES]
    found: list[Tensor] = detector.rpn.anchor_generator(images, maps)
    return found[0]


def compare(objects: Tensor, candidates: Tensor, repeats: int) -> dict[str, Any]:
    """Both ways on the same boxes."""
    ways: dict[str, Callable[[], Tensor]] = {
        "whole": lambda: MATCHER(box_iou(objects, candidates)),
        "parts": lambda: match_boxes(objects, candidates, MATCHER),
    }
    assert ways["whole"]().equal(ways["parts"]())
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - started)
    seconds = {name: statistics.median(each) for name, each in times.items()}
    taken = {name: _peak_bytes(way) for name, way in ways.items()}
    return {
        "objects": len(objects),
        "anchors": len(candidates),
        **{f"{name}_s": round(value, 4) for name, value in seconds.items()},
        **{f"{name}_bytes": value for name, value in taken.items()},
        "time_ratio": round(seconds["parts"] / seconds["whole"], 3),
        "memory_ratio": round(taken["parts"] / taken["whole"], 3),
    }


def _peak_bytes(way: Callable[[], Tensor]) -> int:
    recorder = Recorder()
    with recorder:
        way()
    return highest_bytes(recorder, 0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, nargs="+", default=[20, 100, 300, 1000])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, help="write the results here, as JSON")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    candidates, rows = anchors(), []
    for count in arguments.objects:
        objects = random_target(count, 80, HEIGHT, WIDTH)["boxes"]
        rows.append(row := compare(objects, candidates, arguments.repeats))
        print(
            f"{count:5} objects: {row['time_ratio']:.2f} of the time, "
            f"{row['memory_ratio']:.2f} of the memory",
            flush=True,
        )
    if arguments.out:
        about = {
            "command": " ".join(["python", *sys.argv]),
            **hardware(torch.device("cpu")),
            "torch": torch.__version__,
        }
        arguments.out.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
