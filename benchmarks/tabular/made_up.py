"""Samplers on made-up truths: is one anywhere worse than random search, where nothing is as in the
tables that it was built on?

    python benchmarks/tabular/made_up.py benchmarks/tabular/table-bccd.json --out
    benchmarks/results/search-made-up.json

The table gives data set and recipe alone; its trainings are not looked at. A truth gives each of
1,350 layouts a mean mAP, with a deviation of 2.3 points; a training shows it with noise of 1.5,
once, without a loss, so that only what a sampler makes of scores counts. Each repetition draws a
truth of its own, which all samplers are given. The answer is the completed candidate with the best
score, its regret how far its mean lies below the best mean.

The rule, written before the first run: `multifidelity` may be the default if its mean regret is
nowhere, at no number of trainings, above that of random search by more than two standard errors of
the paired difference.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from table_command import run_command

from nas.study.provenance import git_commit, versions
from search_spaces.layout import Layout
from search_spaces.loading import space_from_dict
from workers.simulator.backend import simulate
from workers.simulator.tabular_benchmark import RecordedRun, TabularBenchmark

Array = NDArray[np.float64]
NAME = Path(__file__).name
SPACE = {
    "name": "made-up",
    "stages": [
        {"kinds": ["C", "T"], "depths": [1, 2, 3]},
        {"kinds": ["C", "T"], "depths": [1, 2, 3]},
        {"kinds": ["C", "T"], "depths": [2, 6, 10, 14, 18]},
        {"kinds": ["C", "T"], "depths": [1, 2, 4]},
    ],
    "channels": [16, 24],
    "conditions": ["C never after T"],
}
MEAN, DEVIATION, NOISE = 0.30, 0.023, 0.015  # of mAP
TRAININGS = (15, 25, 40)
SAMPLERS = ("random", "multifidelity")


class Described:
    """Layouts as what truths are made of.

    Args:
        layouts: of one space.

    Attributes:
        pattern: [N], number of the pattern of kinds.
        sizes: [N, 5], depths and width, each from 0, the least of the space, to 1.
    """

    def __init__(self, layouts: Sequence[Layout]) -> None:
        patterns = sorted({layout.pattern for layout in layouts})
        self.pattern = np.array([patterns.index(layout.pattern) for layout in layouts])
        sizes = np.array([[*each.depths, each.widths[0]] for each in layouts], dtype=float)
        self.sizes: Array = (sizes - sizes.min(axis=0)) / np.ptp(sizes, axis=0)
        self.patterns = len(patterns)

    def additive(self, rng: np.random.Generator) -> Array:
        """An effect of the pattern, and one of each size, which levels off."""
        effects, rates = rng.normal(0.4, 0.7, 5), rng.uniform(0.5, 3, 5)
        of_sizes = standard((effects * (1 - np.exp(-rates * self.sizes))).sum(axis=1))
        of_pattern = standard(rng.normal(size=self.patterns)[self.pattern])
        return standard(rng.uniform(0.5, 1.5) * of_pattern + of_sizes)

    def interactions(self, rng: np.random.Generator) -> Array:
        """The same, and slopes of the sizes that differ from pattern to pattern."""
        slopes = rng.normal(size=(self.patterns, 5))[self.pattern]
        return self.additive(rng) + 0.8 * standard((slopes * (self.sizes - 0.5)).sum(axis=1))

    def rough(self, rng: np.random.Generator) -> Array:
        """Waves in all directions, so that neighbours say little of each other."""
        columns = np.column_stack([np.eye(self.patterns)[self.pattern], self.sizes])
        waves = columns @ rng.normal(0, 2, (columns.shape[1], 300)) + rng.uniform(0, 2 * np.pi, 300)
        return standard(np.cos(waves) @ rng.normal(size=300))

    def small_is_better(self, rng: np.random.Generator) -> Array:
        """Additive, and every size does harm."""
        return self.additive(rng) - 1.5 * standard(self.sizes.sum(axis=1))

    def one_pattern_fails(self, rng: np.random.Generator) -> Array:
        """Additive, but for one pattern, whose layouts lose from one to four deviations."""
        failing = self.pattern == rng.integers(self.patterns)
        return self.additive(rng) - failing * rng.uniform(1, 4, len(failing))


TRUTHS: dict[str, Callable[[Described, np.random.Generator], Array]] = {
    "additive": Described.additive,
    "interactions": Described.interactions,
    "rough": Described.rough,
    "small is better": Described.small_is_better,
    "one pattern fails": Described.one_pattern_fails,
}


def standard(values: Array) -> Array:
    """Mean 0 and deviation 1."""
    result: Array = (values - values.mean()) / max(float(values.std()), 1e-12)
    return result


def made_up(like: TabularBenchmark, truth: str, seed: int) -> tuple[TabularBenchmark, list[float]]:
    """A table with one training of one epoch of each layout, and the mean mAP of each."""
    rng = np.random.default_rng([seed, list(TRUTHS).index(truth)])
    layouts = list(space_from_dict(SPACE, NAME))
    peculiar = 0.2 * rng.normal(size=len(layouts))  # what no size or kind explains
    means = MEAN + DEVIATION * standard(TRUTHS[truth](Described(layouts), rng) + peculiar)
    shown = means + NOISE * rng.normal(size=len(layouts))
    runs = tuple(map(_run, layouts, shown, rng.uniform(0.8, 1.2, len(layouts))))
    recipe = {**like.request["recipe"], "epochs": 1, "warmup_steps": 1}
    space = space_from_dict(SPACE, NAME).to_dict()
    request = {**like.request, "space": space, "recipe": recipe}
    return TabularBenchmark({}, request, like.facts, "cpu", runs), means.tolist()


def _run(layout: Layout, score: float, elapsed_s: float) -> RecordedRun:
    return RecordedRun(
        layout=str(layout),
        seed=0,
        params=1,
        flops=1,
        memory_predicted_gib=0.1,
        fps=1.0,
        loss=(float("nan"),),
        lr=(0.0,),
        map=(score,),
        train_s=(elapsed_s,),
        elapsed_s=(elapsed_s,),
    )


def regrets(
    table: TabularBenchmark, means: Sequence[float], sampler: str, seed: int
) -> list[float]:
    """Points of mAP that the answer lacks, after each number of trainings."""
    with tempfile.TemporaryDirectory() as folder:
        flags = {
            "study": "made-up",
            "run.output": folder,
            "search.trials": max(TRAININGS),
            "search.seed": seed,
            "search.sampler": sampler,
        }
        simulation = simulate(table.spec(flags), table, workers=4)
    done = [m.event for m in simulation.moments if m.event.kind == "complete"]
    truth = dict(zip((run.layout for run in table.runs), means, strict=True))
    scored = [(e.report.metrics.map or 0.0, e.layout) for e in done if e.report]
    chosen = [max(scored[:number])[1] for number in TRAININGS]
    return [round(100 * (max(means) - truth[layout]), 3) for layout in chosen]


def line(truth: str, sampler: str, found: dict[str, list[list[float]]]) -> str:
    """A row: mean regrets, and in brackets the paired difference to random's with its error."""
    cells = []
    for point, _ in enumerate(TRAININGS):
        mine = [each[point] for each in found[sampler]]
        cell = f"{statistics.fmean(mine):.2f}"
        if sampler != "random":
            pairs = [a - b[point] for a, b in zip(mine, found["random"], strict=True)]
            error = f" ± {statistics.stdev(pairs) / len(pairs) ** 0.5:.2f}" if pairs[1:] else ""
            cell += f" ({statistics.fmean(pairs):+.2f}{error})"
        cells.append(cell)
    return f"| {truth} | {sampler} | {' | '.join(cells)} |"


def work(arguments: argparse.Namespace) -> None:
    """Every repetition that is missing, written after each."""
    like = TabularBenchmark.read(arguments.table)
    out = arguments.out
    content = json.loads(out.read_text()) if out.exists() else {"regrets": {}}
    content |= {
        "command": f"python {NAME} {arguments.table.name}",
        "versions": versions(),
        "commit": git_commit(),
        "trainings": TRAININGS,
    }
    for seed, truth in itertools.product(range(arguments.seeds), TRUTHS):
        rows = content["regrets"].setdefault(truth, {name: [] for name in SAMPLERS})
        if len(rows[SAMPLERS[-1]]) > seed:
            continue
        table, means = made_up(like, truth, seed)
        for sampler in SAMPLERS:
            rows[sampler] = [*rows[sampler][:seed], regrets(table, means, sampler, seed)]
        out.write_text(json.dumps(content, separators=(",", ":")) + "\n")
    print(f"| truth | sampler | {' | '.join(f'{number} trainings' for number in TRAININGS)} |")
    print("| --- | --- | ---: | ---: | ---: |")
    for truth, sampler in itertools.product(content["regrets"], SAMPLERS):
        print(line(truth, sampler, content["regrets"][truth]))


if __name__ == "__main__":
    run_command(__doc__, work, seeds=30)
