"""A search beside what one would write by hand for it (`benchmarks/torchvision_search.py`).

    python benchmarks/by_hand.py --data DIR --epochs 4 --our-epochs 2 --out RUNS.jsonl

Both get the layouts, the image size and the channels of the neck; all else is each one's own: by
hand AdamW at 0.002 with one cycle, clipped gradients, batch 8; `nas-submit` by its plan, at
--our-epochs. Wall time is that of the whole command, imports and Ray's start too. Each has as many
trainings at once as there are cores, one thread a training. The target was set before the first
run: as good a mean mAP in at most half the time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LAYOUTS = (
    *("C1-C1-T2-T1@16", "T1-T1-T2-T1@16", "C1-C1-C1-C1@16", "C2-C1-T1-T1@16"),
    *("C1-T1-T1-T2@16", "C1-C2-C2-T1@16", "C1-C1-C2-C1@16", "C1-T1-T2-T1@16"),
)


def by_hand(arguments: argparse.Namespace) -> dict[str, float]:
    """Scores by layout of the search by hand."""
    keys = ("data", "epochs", "image_size", "channels", "seed")
    flags = [w for k in keys for w in (f"--{k.replace('_', '-')}", str(getattr(arguments, k)))]
    program = Path(__file__).with_name("torchvision_search.py")
    ran = run([sys.executable, "-W", "ignore", str(program), *LAYOUTS, *flags])
    return {str(name): float(value) for name, value in json.loads(ran.splitlines()[-1]).items()}


def run(words: list[str]) -> str:
    """What a command prints; its errors go to ours."""
    return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout


def ours(arguments: argparse.Namespace) -> dict[str, float]:
    """Scores by layout of `nas-submit`."""
    tried = [word for layout in LAYOUTS for word in ("--try", layout)]
    sizes = ["--image-size", arguments.image_size, "--epochs", arguments.our_epochs]
    keys = {"detector.channels": arguments.channels, "search.try_only": "true"}
    more = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    with tempfile.TemporaryDirectory() as folder:
        kept = ["--storage", f"sqlite:///{folder}/nas.db", "--output", f"{folder}/runs"]
        asked = ["--space", "tiny", "--recipe", "auto", "--detector", "fcos", "--no-baselines"]
        seeds = ["--seed", arguments.seed, "--trials", len(LAYOUTS)]
        words = ["--data", arguments.data, *asked, *sizes, *tried, *more, *kept, *seeds]
        program = str(Path(sys.executable).with_name("nas-submit"))
        found = run([program, *map(str, words), "--json"])
    rows = json.loads(found)["leaderboard"]
    return {row["layout"]: row["map"] for row in rows}


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Both, one after the other, the one whose turn it is first."""
    sides = {"by_hand": by_hand, "ours": ours}
    row: dict[str, Any] = {"data": arguments.data.name, "seed": arguments.seed}
    row |= {name: getattr(arguments, name) for name in ("epochs", "our_epochs", "image_size")}
    for name in sorted(sides, reverse=arguments.seed % 2 == 1):
        started = time.perf_counter()
        scores = sides[name](arguments)
        row[name] = {
            "wall_s": round(time.perf_counter() - started, 1),
            "map_mean": round(statistics.fmean(scores.values()), 4),
            "map": {layout: round(value, 4) for layout, value in sorted(scores.items())},
        }
    row["time_ratio"] = round(row["ours"]["wall_s"] / row["by_hand"]["wall_s"], 3)
    row["map_difference"] = round(row["ours"]["map_mean"] - row["by_hand"]["map_mean"], 4)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--our-epochs", type=int, default=2)
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file that a line is added to")
    arguments = parser.parse_args()
    row = compare(arguments)
    print(json.dumps(row, indent=1))
    if arguments.out:
        with arguments.out.open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
