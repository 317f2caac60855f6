"""What a dry run predicts beside what the search takes: a dry run, the search in earnest, and a dry
run again.

    python benchmarks/cost.py --data ../shared/data/bccd --local --out
    benchmarks/results/cost-cpu.json

Times are those of a clock on the wall, which other programs on the machine lengthen: the second dry
run shows whether they changed, and so do the load averages. With `--clock cpu` all of `nas` counts
the processor's time of its own process instead, so that they matter little; that is for `--local`,
where one process does everything. Rows are added to what the file has.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from nas.search.forecast.actuals import spent
from nas.study.leaderboard import load_study
from nas.study.storage import open_storage
from nas.utils.device import hardware

REQUEST = (
    "--space tiny --detector fcos --image-size 128 --epochs 3 --trials 8 --set "
    "detector.channels=32 --sampler tpe --seed 0"
)
CLOCKS = {"wall": "", "cpu": "import time; time.perf_counter = time.process_time; "}


def nas(clock: str, *words: str) -> str:
    """What a command prints."""
    program = CLOCKS[clock] + "from nas.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *words], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def dry_run(clock: str, words: list[str]) -> dict[str, Any]:
    """What is predicted, in a few figures."""
    cost = json.loads(nas(clock, "submit", *words, "--dry-run", "--json"))["cost"]
    seconds = ("train_s_high", "candidates_s_high", "wall_s_high", "measuring_s")
    slots = {name: cost[name] for name in ("concurrent", "threads_per_trial")}
    return {
        **{name: round(cost[name], 2) for name in seconds},
        **slots,
        "load": round(os.getloadavg()[0], 2),
    }


def search(clock: str, words: list[str], storage: str) -> dict[str, Any]:
    """What it takes; the processor's time is that of the whole command, imports too."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    nas(clock, "submit", *words)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = spent(load_study(open_storage(storage, create=False), None).get_trials())
    used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "trials": took.trials,
        "train_s": round(took.train_s, 2),
        "wall_s": round(took.wall_s, 2),
        "cpu_s": round(used_s, 2),
        "load": round(os.getloadavg()[0], 2),
    }


def compare(clock: str, data: Path, local: bool) -> dict[str, Any]:
    """One row; ratios are predicted to actual."""
    with tempfile.TemporaryDirectory() as folder:
        storage = f"sqlite:///{folder}/nas.db"
        words = [
            "--data",
            str(data),
            *REQUEST.split(),
            "--storage",
            storage,
            "--output",
            f"{folder}/runs",
            *["--local"] * local,
        ]
        before, actual, after = (
            dry_run(clock, words),
            search(clock, words, storage),
            dry_run(clock, words),
        )
    row = {"clock": clock, "local": local, "before": before, "actual": actual, "after": after}
    lasting_s = actual["wall_s"] if clock == "wall" else actual["cpu_s"]
    for name, predicted in (("before", before), ("after", after)):
        row[f"train_ratio_{name}"] = round(predicted["train_s_high"] / actual["train_s"], 3)
        row[f"wall_ratio_{name}"] = round(predicted["wall_s_high"] / lasting_s, 3)
    return row


def main() -> None:
    """Compare, print, and add to a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--local", action="store_true")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    row = compare(arguments.clock, arguments.data, arguments.local)
    print(json.dumps(row, indent=1))
    if arguments.out:
        kept = json.loads(arguments.out.read_text())["rows"] if arguments.out.exists() else []
        content = {
            "command": "python benchmarks/cost.py --data DATA [--local] [--clock cpu] --out FILE",
            "request": REQUEST,
            "data": arguments.data.name,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "processor": hardware(torch.device("cpu"))["cpu"],
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "torchvision", "optuna", "ray")},
            "rows": [*kept, row],
        }
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
