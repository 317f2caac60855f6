"""The default search on a table of trainings, beside random search: with nothing known before, and
with a study of another table as its prior.

    python benchmarks/tabular TABLE.json
    python benchmarks/tabular TABLE.json --of OTHER.json --out RESULT.json

A search is as in `compare.py`, with the default sampler and pruner, four at once. Its arms: random
search without a pruner (`random`); the default without a prior (`none`); and, with --of, after an
earlier study that has trained every layout of the other table once (`other`), forty of its layouts,
others for each seed (`forty`), or all after its curves have been dealt out anew among its layouts
(`shuffled`). Seeds pair the searches. With --out every repetition is written when it is done, and
those that are in the file stay; --report trains nothing more.

The rules, written before the first run, in parts of the mean regret of random search: without a
prior at most 0.7, 0.35 and 0.5 after 3, 6 and 12.5 % of the work of training every layout; with a
prior of another table at most 0.25 after 6 %; with a shuffled one at most 1.1 of that without after
12.5 %. Intervals are of 95 %, by paired bootstrap. How to make a table: `build.py --help`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compare import Scale, answers, at, whole_search
from optuna.storages import InMemoryStorage
from optuna.study import create_study
from optuna.trial import TrialState, create_trial
from table_command import run_command

from nas.study.provenance import git_commit, match_or_describe, versions
from workers.simulator.backend import simulate
from workers.simulator.tabular_benchmark import RecordedRun, TabularBenchmark

EARLIER = "earlier"
ALONE, AFTER = ("random", "none"), ("other", "forty", "shuffled")
FORTY = 40
# arm, the one it is compared with, point of SHARES, most that its mean regret may be of the other's
RULES = (
    ("none", "random", 0, 0.7),
    ("none", "random", 1, 0.35),
    ("none", "random", 2, 0.5),
    ("other", "random", 1, 0.25),
    ("shuffled", "none", 2, 1.1),
)
SHARES = (0.03, 0.06, 0.125)  # of the work of training everything once
WORKERS = 4


def add_study(
    storage: InMemoryStorage, table: TabularBenchmark, shuffled: int | None, forty: int | None
) -> None:
    """Put a table's first training of each layout into a storage, as a search that has ended.

    Args:
        storage: of the search that comes after it.
        table: of other data.
        shuffled: seed by which curves are dealt out anew among the layouts; None: they are not.
        forty: seed by which forty layouts are drawn, and others left out; None: all are there.
    """
    study = create_study(storage=storage, study_name=EARLIER, direction="maximize")
    spec = table.spec({"study": EARLIER, "search.trials": len(table.by_layout)})
    match_or_describe(study, False, spec, table.facts, 0)
    runs = [of_layout[0] for of_layout in table.by_layout.values()]
    if forty is not None:
        runs = random.Random(forty).sample(runs, min(FORTY, len(runs)))
    courses = list(runs)
    if shuffled is not None:
        random.Random(shuffled).shuffle(courses)
    for run, course in zip(runs, courses, strict=True):
        if not course.fail_reason:
            study.add_trial(_trial(run, course))


def _trial(run: RecordedRun, course: RecordedRun) -> Any:
    losses = {str(epoch): loss for epoch, loss in enumerate(course.loss, start=1)}
    return create_trial(
        state=TrialState.COMPLETE,
        value=course.map[-1],
        intermediate_values=dict(enumerate(course.map, start=1)),
        user_attrs={"layout": run.layout, "flops": run.flops, "losses": losses},
    )


def regrets(
    table: TabularBenchmark, scale: Scale, other: TabularBenchmark | None, arm: str, seed: int
) -> list[float]:
    """Points of mAP that the answer of one search lacks, at each share of the work."""
    storage = InMemoryStorage()
    chosen: dict[str, Any] = {}
    if other and arm in AFTER:
        drawn = (seed if arm == name else None for name in ("shuffled", "forty"))
        add_study(storage, other, *drawn)
        chosen["search.prior"] = [EARLIER]
    if arm == "random":
        chosen["search.sampler"] = "random"
    until_s = max(SHARES) * scale.total_s / WORKERS
    with tempfile.TemporaryDirectory() as folder:
        flags = whole_search(table, seed, folder) | chosen
        found = answers(simulate(table.spec(flags), table, WORKERS, until_s, storage))
    times = [share * scale.total_s / WORKERS for share in SHARES]
    return [round(100 * scale.regret(at(found, at_s)), 3) for at_s in times]


def line(arm: str, found: dict[str, list[list[float]]]) -> str:
    """A row: mean regrets with their standard errors, and in brackets what part they are of that of
    random search.
    """
    cells = []
    for point, _ in enumerate(SHARES):
        mine = [each[point] for each in found[arm]]
        error = statistics.stdev(mine) / len(mine) ** 0.5 if len(mine) > 1 else math.nan
        part = ratio(found, arm, "random", point)
        cells.append(f"{statistics.fmean(mine):.2f} ± {error:.2f} ({part:.2f})")
    return f"| {arm} | {' | '.join(cells)} |"


def ratio(found: dict[str, list[list[float]]], arm: str, other: str, point: int) -> float:
    """The mean regret of an arm, as a part of that of another."""
    theirs = statistics.fmean(each[point] for each in found[other])
    return statistics.fmean(each[point] for each in found[arm]) / theirs if theirs else math.inf


def judged(found: dict[str, list[list[float]]]) -> Iterator[str]:
    """A sentence for each rule whose arms have been run."""
    for arm, other, point, most in RULES:
        if arm not in found:
            continue
        part = ratio(found, arm, other, point)
        low, high = interval(found[arm], found[other], point)
        verdict = "met" if part <= most else "missed"
        yield (
            f"{arm} at {SHARES[point]:.1%} is {part:.2f} ({low:.2f} to {high:.2f}) of {other}; "
            f"at most {most:g}: {verdict}"
        )


def interval(mine: list[list[float]], theirs: list[list[float]], point: int) -> tuple[float, float]:
    """Of the ratio of means, by drawing the paired searches anew."""
    from scipy.stats import bootstrap

    pairs = list(zip(mine, theirs, strict=False))
    sides = tuple([each[point] for each in side] for side in zip(*pairs, strict=True))
    if len(pairs) < 2:
        return math.nan, math.nan

    def of_means(a: Any, b: Any, axis: int) -> Any:
        return a.mean(axis=axis) / b.mean(axis=axis)

    found = bootstrap(sides, of_means, paired=True, method="percentile", rng=0)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def work(arguments: argparse.Namespace) -> None:
    """Every repetition that is missing, written after each."""
    table = TabularBenchmark.read(arguments.table)
    other = TabularBenchmark.read(arguments.of) if arguments.of else None
    arms = (*ALONE, *(AFTER if other else ()))
    scale, out = Scale.of(table), arguments.out
    content = json.loads(out.read_text()) if out and out.exists() else {"regrets": {}}
    rows = content["regrets"]
    for seed, arm in itertools.product(range(arguments.seeds), arms):
        if len(mine := rows.setdefault(arm, [])) > seed:
            continue
        mine.append(regrets(table, scale, other, arm, seed))
        content |= {
            "command": f"python benchmarks/tabular {Path(arguments.table).name}",
            "versions": versions(),
            "commit": git_commit(),
            "shares": SHARES,
        }
        if out:
            out.write_text(json.dumps(content, separators=(",", ":")) + "\n")
    print(f"| prior | {' | '.join(f'regret at {share:.1%}' for share in SHARES)} |")
    print("| --- | ---: | ---: | ---: |")
    print("\n".join([*(line(arm, rows) for arm in arms), "", *judged(rows)]))


if __name__ == "__main__":
    run_command(__doc__, work, seeds=200, of="table of an earlier study")
