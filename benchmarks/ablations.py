"""The paper's comparisons at small size: what each change does to validation mAP, over several seeds.

    python benchmarks/ablations.py --data DIR --out benchmarks/results/ablations-NAME.json

Every row differs from the base in the one thing that it names. The figures are those of a small data set, small images and
narrow networks: they say whether the parts work and which way they pull here, not what they do on COCO.
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
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torchvision

from nas.candidate import Candidate, train_candidate
from nas.data.prepare import read_data
from nas.spec import SearchSpec, load_spec
from search_spaces.layout import Layout

BASE: dict[str, Any] = {
    "detector.name": "faster_rcnn", "detector.channels": 64, "detector.hidden": 128, "recipe.name": "tiny",
    "recipe.image_size": 128, "recipe.batch": 8, "recipe.epochs": 5, "recipe.lr": 2e-3, "recipe.warmup_steps": 40,
}  # fmt: skip
LAYOUT, PLAIN = "C1-C1-T2-T1@16", "T1-T1-T2-T1@16"
LONG = {"recipe.epochs": 15}
CALIBRATION_OFF = {"calibration.enabled": False}
# Name, where the paper has it, layout, and what differs from BASE.
RUNS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("base", "C-C-T-T, RoIAlign, calibrated", LAYOUT, {}),
    ("no calibration", "section 4.3", LAYOUT, CALIBRATION_OFF),
    ("RoIPool", "section 4.1, table 1", LAYOUT, {"detector.roi_op": "pool"}),
    ("T-T-T-T", "section 4.2", PLAIN, {}),
    ("T-T-T-T, no calibration", "section 4.2, 4.3", PLAIN, CALIBRATION_OFF),
    ("long", "sections 3.2, 4.4: three times the epochs", LAYOUT, LONG),
    ("long, no calibration", "sections 4.3, 4.4", LAYOUT, LONG | CALIBRATION_OFF),
    ("long T-T-T-T", "section 3.2", PLAIN, LONG),
    ("DSOD stem on T-T-T-T", "section 3.1", PLAIN + "+stem=dsod", {}),
    ("DSOD dense on T-T-T-T", "section 3.1", PLAIN + "+dense=true", {}),
    ("DSOD neck on T-T-T-T", "section 3.1", PLAIN, {"detector.neck": "dsod"}),
    ("DSOD, all three on T-T-T-T", "section 3.1", PLAIN + "+stem=dsod+dense=true", {"detector.neck": "dsod"}),
]


def spec_of(data: Path, changes: dict[str, Any], seed: int) -> SearchSpec:
    """The request of one run."""
    return load_spec(None, {"data.root": str(data), "space": "tiny", **BASE, **changes, "search.seed": seed})


def train(data: Path, layout: str, changes: dict[str, Any], seed: int) -> dict[str, Any]:
    """One run on one core: its last epoch's figures."""
    torch.set_num_threads(1)
    spec = spec_of(data, changes, seed)
    splits, facts = read_data(spec.data, spec.recipe)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        candidate = Candidate(
            Layout.parse(layout), spec.detector, spec.recipe, spec.calibration, facts.num_classes, seed, Path(folder),
            cache_bytes=spec.run.cache_bytes,
        )  # fmt: skip
        *_, last = train_candidate(candidate, *splits)
    return {
        "seed": seed, "map": round(last.metrics.map or 0, 4), "map_50": round(last.metrics.map_50 or 0, 4),
        "loss": round(last.loss, 4), "elapsed_s": round(time.perf_counter() - started, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="runs at once, each on one core")
    parser.add_argument("--out", type=Path, help="write the results here, as JSON")
    arguments = parser.parse_args()
    rows = []
    with ProcessPoolExecutor(arguments.workers) as pool:
        jobs = [
            (run, [pool.submit(train, arguments.data, run[2], run[3], seed) for seed in range(arguments.seeds)]) for run in RUNS
        ]
        for (name, where, layout, changes), futures in jobs:
            found = [future.result() for future in futures]
            maps = [result["map"] for result in found]
            row = {
                "name": name, "paper": where, "layout": layout, "changes": changes, "map_mean": round(statistics.mean(maps), 4),
                "map_sd": round(statistics.stdev(maps), 4) if len(maps) > 1 else None,
                "map_50_mean": round(statistics.mean(result["map_50"] for result in found), 4), "runs": found,
            }  # fmt: skip
            rows.append(row)
            difference = 100 * (row["map_mean"] - rows[0]["map_mean"])
            score = f"mAP {100 * row['map_mean']:5.1f} +- {100 * (row['map_sd'] or 0):4.1f} ({difference:+5.1f})"
            elapsed_s = sum(result["elapsed_s"] for result in found)
            print(f"{name:28} {layout:34} {score} mAP50 {100 * row['map_50_mean']:5.1f}  {elapsed_s:6.0f} s", flush=True)
    if arguments.out:
        content = {
            "command": " ".join(["python", *sys.argv]), "data": arguments.data.name, "device": "cpu",
            "machine": f"{platform.machine()}, {os.cpu_count()} cores", "python": platform.python_version(),
            "torch": torch.__version__, "torchvision": torchvision.__version__, "base": BASE, "rows": rows,
        }  # fmt: skip
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
