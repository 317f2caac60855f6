"""Predicted training memory beside what a real step takes, and how long a prediction takes.

    python benchmarks/memory.py --out benchmarks/results/memory-CARD.json

On a machine with a GPU: 46 points of layout, detector, size, precision and checkpointing against
PyTorch's own figures, `torch.cuda.max_memory_allocated` and `max_memory_reserved`. Without one: 20
smaller points against a count of a CPU step at dispatch level, with the CPU's kernels on both
sides.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import torch
import torchvision

from nas.config.choices import Checkpointing
from nas.config.sections import DetectorSpec
from nas.profiling.memory import Training, predict_memory, predict_reserved_bytes
from nas.profiling.memory.measurement import measure_memory
from nas.training.gpu_memory import free_memory
from nas.utils.formatting import gib
from nas.utils.gpu_presence import has_hopper
from search_spaces.layout import Layout

DETECTORS = ("fcos", "faster_rcnn")
LAYOUTS = ("T2-T2-T6-T2", "C2-C2-T6-T2", "C2-C2-T12-T4", "C2-T2-T8-T3", "C3-C4-C6-C3@256")
PAPER_LAYOUTS, PAPER_SHAPE = LAYOUTS[:3], (4, 3, 800, 1344)
GPU_SHAPE, CPU_SHAPE = (2, 3, 640, 1056), (2, 3, 320, 512)
CLASSES = 80


def points(gpu: bool) -> Iterator[tuple[str, str, Training]]:
    """Layout, detector and training of every point."""
    for layout in LAYOUTS:
        for detector in DETECTORS:
            for precision in ("fp32", "bf16") if gpu else ("fp32",):
                for checkpointing in get_args(Checkpointing):
                    shape = GPU_SHAPE if gpu else CPU_SHAPE
                    yield (
                        layout,
                        detector,
                        Training(
                            shape,
                            20,
                            precision,
                            checkpointing=checkpointing,
                            hopper=has_hopper(),
                            cuda=gpu,
                        ),
                    )
    if gpu:
        for layout in PAPER_LAYOUTS:
            for detector in DETECTORS:
                yield layout, detector, Training(PAPER_SHAPE, 20, hopper=has_hopper())


def compare(layout: str, detector: str, training: Training, device: torch.device) -> dict[str, Any]:
    """One point: predicted, measured and the relative error."""
    spec, parsed = DetectorSpec(name=detector), Layout.parse(layout)
    predicted = predict_memory(parsed, spec, CLASSES, training)
    predicted_reserved = predict_reserved_bytes(parsed, spec, CLASSES, training)
    free_memory()
    measured = measure_memory(parsed, spec, CLASSES, training, device)
    reserved = measured.reserved_bytes
    return {
        "layout": layout,
        "detector": detector,
        "batch_shape": list(training.batch_shape),
        "boxes_per_image": training.boxes_per_image,
        "precision": training.precision,
        "checkpointing": training.checkpointing,
        "predicted_bytes": predicted.peak_bytes,
        "measured_bytes": measured.peak_bytes,
        "moment": predicted.moment,
        "error": round(predicted.peak_bytes / measured.peak_bytes - 1, 5),
        "predicted_reserved_bytes": predicted_reserved,
        "measured_reserved_bytes": reserved,
        "reserved_error": round(predicted_reserved / reserved - 1, 5) if reserved else None,
        "step_s": round(measured.step_s, 4),
        "fps": measured.fps and round(measured.fps, 2),
    }


def line(row: dict[str, Any]) -> str:
    """A point for people."""
    kept = "" if row["checkpointing"] == "none" else f" {row['checkpointing']}"
    return (
        f"{row['layout']:18} {row['detector']:12} {row['precision']}{kept:6} "
        f"{gib(row['predicted_bytes']):8.3f} predicted {gib(row['measured_bytes']):8.3f} measured "
        f"GiB {100 * row['error']:+6.2f} %"
    )


def timings(size: int = 20) -> dict[str, float]:
    """Seconds of a prediction at 800 x 1344 on one core: the first of all, further new ones, and
    ones known on disk.
    """
    torch.set_num_threads(1)
    training, detector = Training(PAPER_SHAPE), DetectorSpec(name="fcos")
    layouts = [
        Layout.parse(f"C{1 + i % 3}-C{1 + i % 2}-T{4 + i}-T{1 + i % 4}") for i in range(size)
    ]

    def each() -> list[float]:
        predict_memory.cache_clear()
        seconds = []
        for layout in layouts:
            started = time.perf_counter()
            predict_memory(layout, detector, CLASSES, training)
            seconds.append(time.perf_counter() - started)
        return seconds

    with tempfile.TemporaryDirectory() as folder:
        before = os.environ.get("XDG_CACHE_HOME")
        os.environ["XDG_CACHE_HOME"] = folder
        try:
            new, cached = each(), each()
        finally:
            os.environ.pop("XDG_CACHE_HOME")
            if before is not None:
                os.environ["XDG_CACHE_HOME"] = before
    return {
        "first_s": round(new[0], 4),
        "new_median_s": round(statistics.median(new[1:]), 4),
        "new_max_s": round(max(new), 4),
        "cached_median_s": round(statistics.median(cached), 5),
        "cached_max_s": round(max(cached), 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write the results here, as JSON")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    speed = timings()
    print("seconds:", ", ".join(f"{name} {value}" for name, value in speed.items()))
    rows = []
    for layout, detector, training in points(device.type == "cuda"):
        rows.append(row := compare(layout, detector, training, device))
        print(line(row), flush=True)
    errors = [abs(row["error"]) for row in rows]
    summary = {
        "points": len(rows),
        "median_error": statistics.median(errors),
        "worst_error": max(errors),
    }
    print(
        f"{len(rows)} points: median error {100 * summary['median_error']:.2f} %, worst "
        f"{100 * summary['worst_error']:.2f} %"
    )
    if arguments.out:
        content = {
            "command": " ".join(["python", *sys.argv]),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "summary": summary,
            "seconds": speed,
            "rows": rows,
        }
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
