"""All detectors side by side, each trained from scratch on one core with one setting: what they
reach, in what time and memory.

    python benchmarks/detectors.py --data DIR --out benchmarks/results/detectors-NAME.json

In parts: `--detectors fcos atss` trains these; rows of others that are in the file stay. The same
backbone, widths, images and learning rate for all; epochs differ, because RepPoints v2 and Sparse
R-CNN learn slowly: they have their own score after the first epoch to be compared with. The figures
are those of small images and narrow networks: they say that every detector learns, not which one is
best.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torchvision

from nas.config.spec import load_spec
from nas.models.detectors import DETECTORS
from nas.planning.adaptation import adapt_to_data
from nas.profiling.memory import predict_memory
from nas.reports import EpochReport
from nas.search.budget import training_of
from nas.training.candidate import Candidate, train_candidate
from nas.utils.device import hardware
from nas.utils.formatting import gib
from search_spaces.layout import Layout

LAYOUT = "C1-C1-T2-T1@16"
BASE: dict[str, Any] = {
    "detector.channels": 32,
    "detector.hidden": 64,
    "detector.regions": 64,
    "detector.proposals": 50,
    "recipe.name": "tiny",
    "recipe.image_size": 160,
}
EPOCHS = {
    "fcos": 4,
    "faster_rcnn": 3,
    "atss": 3,
    "cascade_mask_rcnn": 3,
    "reppoints_v2": 6,
    "sparse_rcnn": 20,
}


def train(data: Path, detector: str) -> dict[str, Any]:
    """The row of one detector; its seconds include calibration and the evaluation after each
    epoch.
    """
    flags = {
        "data.root": str(data),
        "space": "tiny",
        **BASE,
        "detector.name": detector,
        "recipe.epochs": EPOCHS[detector],
    }
    spec, splits, facts = adapt_to_data(load_spec(None, flags))
    layout, started = Layout.parse(LAYOUT), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        candidate = Candidate.from_spec(layout, spec, facts, Path(folder))
        reports = list(train_candidate(candidate, *splits))
    elapsed_s = time.perf_counter() - started
    predicted = predict_memory(
        layout, spec.detector, facts.num_classes, training_of(spec.recipe, facts)
    )
    steps = math.ceil(len(splits.train.images) / spec.recipe.batch)
    return {
        "detector": detector,
        "epochs": len(reports),
        "steps_an_epoch": steps,
        "after_first_epoch": _scores(reports[0]),
        **_scores(reports[-1]),
        "loss_first": round(reports[0].loss, 3),
        "loss_last": round(reports[-1].loss, 3),
        "train_images_per_s": round(
            len(reports) * len(splits.train.images) / reports[-1].train_s, 1
        ),
        "eval_images_per_s": round(reports[-1].fps, 1),
        "memory_predicted_gib": round(gib(predicted.peak_bytes), 3),
        "elapsed_s": round(elapsed_s, 1),
    }


def _scores(report: EpochReport) -> dict[str, float]:
    return {name: round(getattr(report.metrics, name) or 0.0, 4) for name in ("map", "map_50")}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--detectors", nargs="+", choices=[*DETECTORS], default=[*DETECTORS])
    parser.add_argument("--out", type=Path, help="write the results here, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, dict[str, Any]] = {}
    if arguments.out and arguments.out.exists():
        rows = {row["detector"]: row for row in json.loads(arguments.out.read_text())["rows"]}
    for detector in arguments.detectors:
        rows[detector] = train(arguments.data, detector)
        print(_line(rows[detector]), flush=True)
        if arguments.out:
            arguments.out.write_text(json.dumps(_content(arguments, rows), indent=1) + "\n")


def _content(arguments: argparse.Namespace, rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        # or in parts
        "command": f"python {sys.argv[0]} --data {arguments.data.name} --out {arguments.out}",
        "data": arguments.data.name,
        "device": "cpu",
        "threads": 1,
        "processor": hardware(torch.device("cpu"))["cpu"],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "layout": LAYOUT,
        "base": BASE,
        "rows": [rows[detector] for detector in DETECTORS if detector in rows],
    }


def _line(row: dict[str, Any]) -> str:
    """For people, scores in per cent."""
    first, last = (
        f"{100 * scores['map']:4.1f} / {100 * scores['map_50']:4.1f}"
        for scores in (row["after_first_epoch"], row)
    )
    return (
        f"{row['detector']:18} AP / AP50 {last} after {row['epochs']:2} epochs, {first} after 1; "
        "images a second "
        f"{row['train_images_per_s']:5.1f} trained, {row['eval_images_per_s']:5.1f} scored; "
        "predicted "
        f"{row['memory_predicted_gib']:.3f} GiB; {row['elapsed_s']:.0f} s"
    )


if __name__ == "__main__":
    main()
