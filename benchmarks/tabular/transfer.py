"""What a search gains from an earlier study of other data, and what it loses by a useless one.

    python benchmarks/tabular/transfer.py benchmarks/tabular/table-bccd.json --of
    benchmarks/tabular/table-raccoon.json --out benchmarks/results/prior-raccoon-to-bccd.json

The earlier study has trained every layout of the other table once. A search is as in `compare.py`,
with the default sampler and pruner: without a prior (`none`), with that study as `search.prior`
(`other`), with forty of its layouts, others for each seed (`forty`), and with the whole study after
its curves have been dealt out anew among its layouts (`shuffled`). Seeds pair the searches.
Repetitions that are in the file stay. (`forty` came after the first run of the others: the whole
study makes every search begin with the same layouts, which is one draw however often repeated.)

The rule, written before the first run: with a prior of another table the mean regret at 6 % of the
work is at most a quarter of that of random search; with a shuffled one at 12.5 % it is at most 1.1
times that without.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
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
ARMS = ("random", "none", "other", "forty", "shuffled")
FORTY = 40
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
    table: TabularBenchmark, scale: Scale, other: TabularBenchmark, arm: str, seed: int
) -> list[float]:
    """Points of mAP that the answer of one search lacks, at each share of the work."""
    storage = InMemoryStorage()
    chosen: dict[str, Any] = {}
    if arm in ("other", "forty", "shuffled"):
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
        mine, plain = ([each[point] for each in found[name]] for name in (arm, "random"))
        error = statistics.stdev(mine) / len(mine) ** 0.5
        part = statistics.fmean(mine) / statistics.fmean(plain)
        cells.append(f"{statistics.fmean(mine):.2f} ± {error:.2f} ({part:.2f})")
    return f"| {arm} | {' | '.join(cells)} |"


def work(arguments: argparse.Namespace) -> None:
    """Every repetition that is missing, written after each."""
    table, other = (TabularBenchmark.read(path) for path in (arguments.table, arguments.of))
    scale, out = Scale.of(table), arguments.out
    content = json.loads(out.read_text()) if out.exists() else {"regrets": {}}
    rows = content["regrets"]
    for seed in range(arguments.seeds):
        for arm in ARMS:
            if len(mine := rows.setdefault(arm, [])) > seed:
                continue
            mine.append(regrets(table, scale, other, arm, seed))
            content |= {
                "command": f"python {' '.join(Path(word).name for word in sys.argv)}",
                "versions": versions(),
                "commit": git_commit(),
                "shares": SHARES,
            }
            out.write_text(json.dumps(content, separators=(",", ":")) + "\n")
    print(f"| prior | {' | '.join(f'regret at {share:.1%}' for share in SHARES)} |")
    print("| --- | ---: | ---: | ---: |")
    for arm in ARMS:
        print(line(arm, rows))


if __name__ == "__main__":
    run_command(__doc__, work, seeds=60, of="table of the earlier study")
