"""Samplers and pruners compared on a table of trainings: what each has found after how much work.

    python benchmarks/tabular/compare.py benchmarks/tabular/table-bccd.json --out
    benchmarks/results/search-bccd.json

Every search is the product's own, replayed by the simulator in memory; seeds differ in what the
sampler draws and in which run of a layout with several a search is shown. Its answer at a time is
the completed candidate with the best score that it has seen by then; its regret is how far the mean
of that layout's runs lies below the best mean of the table. Work is in seconds of workers, as a
share of what it takes to train every layout once. `regret_again` is that of a search which ended a
little earlier and trained its best three with the other seeds of the table, as `search.replicates`
does. In parts: `--samplers gp` computes these; rows of others that are in the file stay.

`median@cost` is the pruner `median` with `search.prune_at: cost`. `informed` is no sampler, but
what a search would do that knows beforehand how well each layout is predicted from all others
(`bound.py`): it trains in that order.
"""

from __future__ import annotations

import argparse
import bisect
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from bound import again, informed_order
from noise import near_best

from nas.config.choices import PruneAt
from nas.errors import UserError
from nas.study.leaderboard import TOP
from nas.study.provenance import git_commit, versions
from search_spaces.layout import Layout
from workers.simulator.backend import Simulation, simulate
from workers.simulator.tabular_benchmark import TabularBenchmark

SAMPLERS = ("random", "tpe", "gp", "multifidelity", "nsga2")
INFORMED = "informed"
PRUNINGS = (
    "none",
    "multifidelity",
    *(f"{name}{at}" for name in ("median", "hyperband") for at in ("", "@cost")),
)
POINTS = 50  # of a curve
SHOWN = (0.25, 0.5, 0.75, 1.0)  # of the work of a search


@dataclass(frozen=True)
class Scale:
    """What answers are measured by: mean scores, the best of them, layouts within noise of it, and
    the work of the table.
    """

    means: dict[str, float]
    near: set[str]
    total_s: float

    @classmethod
    def of(cls, table: TabularBenchmark) -> Scale:
        means = {layout: table.mean_map(Layout.parse(layout)) for layout in table.by_layout}
        total_s = sum(
            statistics.fmean(run.elapsed_s[-1] for run in runs) for runs in table.by_layout.values()
        )
        return cls(means, near_best(table), total_s)

    def regret(self, layout: str | None) -> float:
        """Of an answer; of none, that of a score of 0."""
        return max(self.means.values()) - (self.means[layout] if layout else 0.0)


def answers(simulation: Simulation) -> list[tuple[float, str]]:
    """When the answer of a search changed, in seconds of its clock, and to which layout."""
    best, found = -1.0, []
    for moment in simulation.moments:
        event = moment.event
        if event.kind == "complete" and event.report and (event.report.metrics.map or 0.0) > best:
            best = event.report.metrics.map or 0.0
            found.append((moment.at_s, event.layout))
    return found


def at(found: Sequence[tuple[float, str]], at_s: float) -> str | None:
    """The answer at a time."""
    place = bisect.bisect_right([since_s for since_s, _ in found], at_s)
    return found[place - 1][1] if place else None


def answers_again(
    table: TabularBenchmark,
    simulation: Simulation,
    seed: int,
    times: Sequence[float],
    cost_s: float,
) -> list[str | None]:
    """At each time the answer of a search that ended `cost_s` before and trained its best three
    with the table's other seeds, which choose, as `search.replicates` does.
    """
    done = [
        (moment.at_s, moment.event)
        for moment in simulation.moments
        if moment.event.kind == "complete"
    ]
    scores = {event.layout: event.report.metrics.map or 0.0 for _, event in done if event.report}
    found: list[str | None] = []
    for until_s in times:
        board = sorted(
            (event.layout for at_s, event in done if at_s <= until_s - cost_s),
            key=lambda name: -scores[name],
        )
        found.append(max(board[:TOP], key=lambda name: again(table, name, seed), default=None))
    return found


def row(
    table: TabularBenchmark, scale: Scale, sampler: str, pruner: str, arguments: argparse.Namespace
) -> dict[str, Any]:
    """One kind of search, over the seeds. Curves have a value for each share of the work."""
    begun = time.perf_counter()
    until_s = arguments.share * scale.total_s / arguments.workers
    times = [until_s * point / POINTS for point in range(1, POINTS + 1)]
    others = max(map(len, table.by_layout.values())) - 1  # seeds that a search is not shown
    again_s = others * TOP * scale.total_s / len(scale.means) / arguments.workers
    courses, chosen, reached, trials, pruned = [], [], [], [], []
    for seed in range(arguments.seeds):
        simulation = search(table, sampler, pruner, seed, arguments.workers, until_s)
        found = answers(simulation)
        courses.append([at(found, at_s) for at_s in times])
        chosen.append(answers_again(table, simulation, seed, times, again_s))
        near_s = next((at_s for at_s, layout in found if layout in scale.near), None)
        reached.append(near_s * arguments.workers / scale.total_s if near_s is not None else None)
        kinds = [moment.event.kind for moment in simulation.moments]
        trials.append(kinds.count("complete") + kinds.count("pruned"))
        pruned.append(kinds.count("pruned"))
    regrets_again = [[scale.regret(course[point]) for course in chosen] for point in range(POINTS)]
    regrets = [sorted(scale.regret(course[point]) for course in courses) for point in range(POINTS)]
    near = [
        sum(course[point] in scale.near for course in courses) / len(courses)
        for point in range(POINTS)
    ]
    once = sorted(share for share in reached if share is not None)
    return {
        "sampler": sampler,
        "pruner": pruner,
        "trials": statistics.median(trials),
        "pruned": statistics.median(pruned),
        "regret_median": [round(statistics.median(values), 5) for values in regrets],
        "regret_quarter": [round(_quantile(values, 0.25), 5) for values in regrets],
        "regret_three_quarters": [round(_quantile(values, 0.75), 5) for values in regrets],
        "regret_mean": [round(statistics.fmean(values), 5) for values in regrets],
        "regret_again_median": [round(statistics.median(values), 5) for values in regrets_again],
        "regret_again_mean": [round(statistics.fmean(values), 5) for values in regrets_again],
        "within_noise": [round(share, 3) for share in near],
        "first_within_noise_share": round(once[len(reached) // 2], 4)
        if len(once) > len(reached) // 2
        else None,
        "took_s": round(time.perf_counter() - begun, 1),
    }


def search(
    table: TabularBenchmark, sampler: str, pruner: str, seed: int, workers: int, until_s: float
) -> Simulation:
    """One search, until the time is over or everything has been trained."""
    with tempfile.TemporaryDirectory() as folder:
        flags = whole_search(table, seed, folder) | settings(table, sampler, pruner)
        return simulate(table.spec(flags), table, workers, until_s)


def whole_search(table: TabularBenchmark, seed: int, folder: str) -> dict[str, Any]:
    """Keys of a request whose search ends when every layout has been trained."""
    return {
        "study": "simulated",
        "run.output": folder,
        "search.trials": len(table.by_layout) + 1,
        "search.seed": seed,
    }


def settings(table: TabularBenchmark, sampler: str, pruner: str) -> dict[str, Any]:
    """What a search is asked for, by the names in this file."""
    name, _, at = pruner.partition("@")
    chosen = {"search.pruner": name, "search.prune_at": at or get_args(PruneAt)[0]}
    if sampler == INFORMED:
        return chosen | {"search.try": informed_order(table), "search.try_only": True}
    return chosen | {"search.sampler": sampler}


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def text(found: dict[str, Any]) -> str:
    """A Markdown table: median regrets in points of mAP and, in brackets, relative to random search
    without a pruner.
    """
    points = [round(share * POINTS) - 1 for share in SHOWN]
    shares = [f"{found['shares'][point]:.1%}" for point in points]
    head = [
        "sampler",
        "pruner",
        *(f"regret at {share}" for share in shares),
        *(f"again at {share}" for share in shares),
    ]
    lines = [head, ["---", "---", *["---:"] * (len(head) - 2)]]
    for row in found["rows"]:
        cells = [
            _cell(found, row, name, point)
            for name in ("regret_median", "regret_again_median")
            for point in points
        ]
        lines.append([row["sampler"], row["pruner"], *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(found: dict[str, Any], row: dict[str, Any], name: str, point: int) -> str:
    """A median regret, and what part it is of that of random search without a pruner after as much
    work.
    """
    plain = next(
        (each for each in found["rows"] if (each["sampler"], each["pruner"]) == ("random", "none")),
        None,
    )
    part = f"{row[name][point] / plain[name][point]:.2f}" if plain and plain[name][point] else "-"
    return f"{100 * row[name][point]:.2f} ({part})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    parser.add_argument(
        "--samplers", nargs="+", choices=(*SAMPLERS, INFORMED), default=[*SAMPLERS, INFORMED]
    )
    parser.add_argument("--pruners", nargs="+", choices=PRUNINGS, default=[*PRUNINGS])
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument(
        "--share", type=float, default=0.25, help="how much of the work of training everything once"
    )
    parser.add_argument("--out", type=Path, help="write the curves here, as JSON")
    arguments = parser.parse_args()
    try:
        print(text(work(arguments)))
    except UserError as error:
        parser.exit(2, f"error: {error}\n")


def work(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything asked for, written after each row."""
    table = TabularBenchmark.read(arguments.table)
    scale = Scale.of(table)
    content = {
        "command": f"python {Path(sys.argv[0]).name} {arguments.table.name}",
        "table": table.about,
        "versions": versions(),
        "commit": git_commit(),
        "workers": arguments.workers,
        "seeds": arguments.seeds,
        "total_s": round(scale.total_s, 1),
        "map_best_mean": round(max(scale.means.values()), 5),
        "layouts_within_noise": len(scale.near),
        "shares": [round(arguments.share * point / POINTS, 5) for point in range(1, POINTS + 1)],
    }
    rows = earlier(arguments.out, content)
    for sampler in arguments.samplers:
        for pruner in arguments.pruners if sampler != INFORMED else PRUNINGS[:1]:
            computed = row(table, scale, sampler, pruner, arguments)
            rows = {
                **rows,
                **earlier(arguments.out, content),
                (sampler, pruner): computed,
            }  # another process may add rows too
            content["rows"] = [
                rows[key]
                for key in ((s, p) for s in (*SAMPLERS, INFORMED) for p in PRUNINGS)
                if key in rows
            ]
            if arguments.out:
                arguments.out.write_text(
                    json.dumps(content, indent=None, separators=(",", ":")) + "\n"
                )
    return content


def earlier(out: Path | None, content: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Rows that are in the file and were computed in the same way.

    Raises:
        UserError: the file has others.
    """
    if not out or not out.exists():
        return {}
    found = json.loads(out.read_text())
    if changed := [
        key for key in ("table", "workers", "seeds", "shares") if found[key] != content[key]
    ]:
        raise UserError(
            f"--out {str(out)!r} has rows with other {', '.join(changed)}: choose another file"
        )
    return {(row["sampler"], row["pruner"]): row for row in found["rows"]}


if __name__ == "__main__":
    main()
