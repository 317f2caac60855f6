"""The paper's comparisons at small size: what each change does to validation mAP, over several
seeds.

    python benchmarks/ablations.py --data DIR --out benchmarks/results/ablations-NAME.json

Every row differs from the one that it is compared with in the one thing that it names; differences
are of the same seeds. The figures are those of a small data set, small images and narrow networks:
they say whether the parts work and which way they pull here, not what they do on COCO. FCOS, but
for what regions are pooled with.
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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torchvision

from nas.config.spec import SearchSpec, load_spec
from nas.planning.adaptation import adapt_to_data
from nas.training.candidate import Candidate, train_candidate
from search_spaces.layout import Layout

BASE: dict[str, Any] = {
    "detector.name": "fcos",
    "detector.channels": 64,
    "detector.hidden": 128,
    "recipe.name": "tiny",
    "recipe.image_size": 128,
    "recipe.batch": 8,
    "recipe.epochs": 5,
    "recipe.lr": 2e-3,
    "recipe.warmup_steps": 40,
    "recipe.init": "he",  # this and the next: the paper's
    "calibration.definition": "paper",
}
LAYOUT, PLAIN = "C1-C1-T2-T1@16", "T1-T1-T2-T1@16"
LONG = {"recipe.epochs": 15}
CALIBRATION_OFF = {"calibration.enabled": False}


@dataclass(frozen=True)
class Run:
    """A row: its name, the row that it is compared with, where the paper has it, its layout, and
    what differs from `BASE`.
    """

    name: str
    against: str
    paper: str
    layout: str = LAYOUT
    changes: dict[str, Any] = field(default_factory=dict)


TWO_STAGE = {"detector.name": "faster_rcnn"}
RUNS = (
    Run("C-C-T-T", "C-C-T-T", "section 4.2"),
    Run("not calibrated", "C-C-T-T", "section 4.3", changes=CALIBRATION_OFF),
    Run("T-T-T-T", "C-C-T-T", "section 4.2, table 2", PLAIN),
    Run("T-T-T-T, not calibrated", "T-T-T-T", "section 4.3", PLAIN, CALIBRATION_OFF),
    Run("long", "C-C-T-T", "sections 3.2, 4.4: three times the epochs", changes=LONG),
    Run("long, not calibrated", "long", "sections 4.3, 4.4", changes=LONG | CALIBRATION_OFF),
    Run("long T-T-T-T", "T-T-T-T", "section 3.2", PLAIN, LONG),
    Run("DSOD's stem", "T-T-T-T", "section 3.1", PLAIN + "+stem=dsod"),
    Run("DSOD's dense connections", "T-T-T-T", "section 3.1", PLAIN + "+dense=true"),
    Run("DSOD's neck", "T-T-T-T", "section 3.1", PLAIN, {"detector.neck": "dsod"}),
    Run(
        "DSOD's three changes",
        "T-T-T-T",
        "section 3.1",
        PLAIN + "+stem=dsod+dense=true",
        {"detector.neck": "dsod"},
    ),
    Run("RoIAlign", "RoIAlign", "section 4.1, table 1", changes=TWO_STAGE),
    Run(
        "RoIPool",
        "RoIAlign",
        "section 4.1, table 1",
        changes=TWO_STAGE | {"detector.roi_op": "pool"},
    ),
)


def spec_of(data: Path, changes: dict[str, Any], seed: int) -> SearchSpec:
    """The request of one run."""
    return load_spec(
        None, {"data.root": str(data), "space": "tiny", **BASE, **changes, "search.seed": seed}
    )


def train(data: Path, layout: str, changes: dict[str, Any], seed: int) -> dict[str, Any]:
    """One run on one core: its last epoch's figures."""
    torch.set_num_threads(1)
    spec = spec_of(data, changes, seed)
    spec, splits, facts = adapt_to_data(spec)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        candidate = Candidate.from_spec(Layout.parse(layout), spec, facts, Path(folder), seed=seed)
        *_, last = train_candidate(candidate, *splits)
    return {
        "seed": seed,
        "map": round(last.metrics.map or 0, 4),
        "map_50": round(last.metrics.map_50 or 0, 4),
        "loss": round(last.loss, 4),
        "elapsed_s": round(time.perf_counter() - started, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="runs at once, each on one core")
    parser.add_argument("--out", type=Path, help="write the results here, as JSON")
    arguments = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    with ProcessPoolExecutor(arguments.workers) as pool:
        jobs = [
            (
                run,
                [
                    pool.submit(train, arguments.data, run.layout, run.changes, seed)
                    for seed in range(arguments.seeds)
                ],
            )
            for run in RUNS
        ]
        for run, futures in jobs:
            found = [future.result() for future in futures]
            maps = [result["map"] for result in found]
            theirs = (
                [result["map"] for result in rows[run.against]["runs"]]
                if run.against in rows
                else maps
            )
            differences = [mine - other for mine, other in zip(maps, theirs, strict=True)]
            rows[run.name] = asdict(run) | {
                "map_mean": _mean(maps),
                "map_sd": _sd(maps),
                "difference_mean": _mean(differences),
                "difference_sd": _sd(differences),
                "map_50_mean": _mean([result["map_50"] for result in found]),
                "runs": found,
            }
            print(_line(rows[run.name]), flush=True)
    if arguments.out:
        content = {
            "command": " ".join(["python", *sys.argv]).replace(
                str(arguments.data), arguments.data.name
            ),
            "data": arguments.data.name,
            "device": "cpu",
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "base": BASE,
            "rows": [*rows.values()],
        }
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")


def _mean(values: list[float]) -> float:
    return round(statistics.mean(values), 4)


def _sd(values: list[float]) -> float | None:
    return round(statistics.stdev(values), 4) if len(values) > 1 else None


def _line(row: dict[str, Any]) -> str:
    """For people, in per cent."""
    score = (
        f"mAP {100 * row['map_mean']:5.1f} +- {100 * (row['map_sd'] or 0):4.1f}, mAP50 "
        f"{100 * row['map_50_mean']:5.1f}"
    )
    difference = (
        f"{100 * row['difference_mean']:+5.1f} +- {100 * (row['difference_sd'] or 0):4.1f} "
        f"against {row['against']}"
    )
    elapsed_s = sum(result["elapsed_s"] for result in row["runs"])
    return f"{row['name']:25} {row['layout']:34} {score}; {difference}; {elapsed_s:.0f} s"


if __name__ == "__main__":
    main()
