"""Trainings that differ in one thing, with paired seeds: what each arm gains over another, and the
interval of it.

    python benchmarks/paired/run.py benchmarks/paired/calibration.yaml --data DIR --out RUNS.jsonl
    python benchmarks/paired/run.py benchmarks/paired/calibration.yaml --out RUNS.jsonl --report

DIR has a folder for each data set that the file names. --set detector.name=atss changes the base
for another detector, whose runs are a file of their own. A run that is in RUNS.jsonl is not done
again, so an interrupted command goes on. Each run has one core; --workers of them go at once.

The file says beforehand what is compared and by which rule it is decided:

    rule: what would make it the default
    data: [bccd, raccoon]
    layouts: [C1-C1-T2-T1@16]
    seeds: 4
    base: {recipe: tiny, detector: fcos}      # keys of a request, dotted
    arms: {base: {}, swin: {recipe.init: swin}}
    against: {swin: base}
    only: {bccd: {recipe.epochs: 8}}          # keys of one data set, all arms alike
    equal: {swin: {bccd: {recipe.epochs: 7}}} # keys of an arm on one data set
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import yaml

Key = tuple[str, str, str, int]  # data set, layout, arm, seed


def runs_of(plan: dict[str, Any]) -> Iterator[Key]:
    """Every run, all arms of a seed before the next seed."""
    seeds = range(plan.get("first_seed", 0), plan.get("first_seed", 0) + plan["seeds"])
    for seed, data, layout in itertools.product(seeds, plan["data"], plan["layouts"]):
        for arm in plan["arms"]:
            yield data, layout, arm, seed


def train(root: Path, plan: dict[str, Any], key: Key) -> dict[str, Any]:
    """One run on one core."""
    import torch

    from nas.config.spec import load_spec
    from nas.planning.adaptation import adapt_to_data
    from nas.training.candidate import Candidate, train_candidate
    from search_spaces.layout import Layout

    torch.set_num_threads(1)
    data, text, arm, seed = key
    layout = Layout.parse(text)
    flags = {**plan["base"], **plan.get("only", {}).get(data, {}), **plan["arms"][arm]}
    flags |= plan.get("equal", {}).get(arm, {}).get(data, {})
    asked = load_spec(None, {**flags, "data.root": str(root / data), "search.seed": seed})
    spec, splits, facts = adapt_to_data(asked, width=layout.widths[0])
    started, busy = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        candidate = Candidate.from_spec(layout, spec, facts, Path(folder), seed=seed)
        reports = list(train_candidate(candidate, *splits))
    return {
        "run": key,
        "map": round(reports[-1].kept.map or 0, 4),
        "map_50": round(reports[-1].kept.map_50 or 0, 4),
        "curve": [round(report.metrics.map or 0, 4) for report in reports],
        "train_s": round(reports[-1].train_s, 1),
        "elapsed_s": round(time.perf_counter() - started, 1),
        "cpu_s": round(time.process_time() - busy, 1),
    }


def train_all(arguments: argparse.Namespace, plan: dict[str, Any], left: list[Key]) -> None:
    """Each as it ends, a line of the file; the first that fails ends them all."""
    pool = ProcessPoolExecutor(arguments.workers)
    try:
        jobs = [pool.submit(train, arguments.data, plan, key) for key in left]
        for number, job in enumerate(as_completed(jobs), start=1):
            with arguments.out.open("a") as file:
                file.write(json.dumps(job.result()) + "\n")
            print(f"{number} of {len(left)}: {job.result()['run']}", flush=True)
    finally:
        pool.shutdown(cancel_futures=True)


def results(out: Path) -> dict[Key, dict[str, Any]]:
    """What has been done."""
    lines = out.read_text().splitlines() if out.exists() else []
    done = [json.loads(line) for line in lines]
    return {tuple(run["run"]): run for run in done}


def report(plan: dict[str, Any], done: dict[Key, dict[str, Any]]) -> Iterator[str]:
    """A table: each arm on each data set, and its difference to the one it is compared with."""
    yield "| data | layout | arm | seeds | mAP | difference, 95 % interval | CPU s |"
    yield "| --- | --- | --- | ---: | ---: | --- | ---: |"
    for data, layout, arm in itertools.product(plan["data"], plan["layouts"], plan["arms"]):
        mine = {k[3]: run for k, run in done.items() if k[:3] == (data, layout, arm)}
        if not mine:
            continue
        other = plan.get("against", {}).get(arm)
        theirs = {k[3]: run for k, run in done.items() if k[:3] == (data, layout, other)}
        pairs = [100 * (mine[s]["map"] - theirs[s]["map"]) for s in mine if s in theirs]
        mean = 100 * statistics.fmean(run["map"] for run in mine.values())
        cpu_s = statistics.fmean(run["cpu_s"] for run in mine.values())
        said = difference(pairs) if other else ""
        yield f"| {data} | {layout} | {arm} | {len(mine)} | {mean:.1f} | {said} | {cpu_s:.0f} |"
    yield from _pooled(plan, done)


def _pooled(plan: dict[str, Any], done: dict[Key, dict[str, Any]]) -> Iterator[str]:
    """The mean over layouts of each seed's difference, by data set."""
    yield ""
    for data, (arm, other) in itertools.product(plan["data"], plan.get("against", {}).items()):
        by_seed: dict[int, list[float]] = {}
        for (where, layout, name, seed), run in done.items():
            pair = done.get((data, layout, other, seed))
            if (where, name) == (data, arm) and pair:
                by_seed.setdefault(seed, []).append(100 * (run["map"] - pair["map"]))
        whole = [statistics.fmean(x) for x in by_seed.values() if len(x) == len(plan["layouts"])]
        if whole:
            yield f"{data}, mean over layouts: {arm} against {other} {difference(whole)}"


def difference(pairs: list[float]) -> str:
    """Mean of paired differences with Student's interval."""
    from scipy.stats import ttest_1samp

    mean = statistics.fmean(pairs)
    if len(pairs) < 2:
        return f"{mean:+.1f}"
    low, high = ttest_1samp(pairs, 0).confidence_interval()
    return f"{mean:+.1f} ± {(high - low) / 2:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("plan", type=Path)
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--arms", help="of the file's, those to train: base,outputs")
    parser.add_argument("--only", help="of the file's data sets, those to train on: bccd,raccoon")
    parser.add_argument("--report", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    plan = yaml.safe_load(arguments.plan.read_text())
    plan["base"] |= dict(pair.split("=", 1) for pair in arguments.set)
    done = results(arguments.out)
    if not arguments.report:
        plan["data"] = arguments.only.split(",") if arguments.only else plan["data"]
        missing = [name for name in plan["data"] if not (arguments.data / name).is_dir()]
        if missing:
            parser.error(f"--data {arguments.data}: no folder {', '.join(missing)}")
        arms = arguments.arms.split(",") if arguments.arms else [*plan["arms"]]
        left = [key for key in runs_of(plan) if key not in done and key[2] in arms]
        train_all(arguments, plan, left)
    print("\n".join(report(plan, results(arguments.out))))


if __name__ == "__main__":
    main()
