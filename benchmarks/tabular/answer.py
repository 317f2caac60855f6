"""Which completed candidate a search should answer with: the one with the best score, or the one of
which the model expects most.

    python benchmarks/tabular/answer.py benchmarks/tabular/table-bccd.json --out
    benchmarks/results/answer-bccd.json

Searches are as in `compare.py`, with the default pruner of each sampler. Of a layout with several
trainings a search is shown one; an answer is worth the mean mAP of the others (held out), which
knows nothing of the luck that chose it. `expected` is the candidate with the highest posterior mean
(`nas.search.multifidelity.expected`) among the five best by score, whose weights a search keeps.
Beside it: how far scores and posterior means of completed candidates are from the held-out means
(root mean square), and in what share of cases the 95 % interval holds the held-out mean, whose own
noise of `NOISE` is added to it. Layouts of attention alone, which fail with some seeds, are left
out of these three.

The rule, written before searches with the default sampler were run: the model chooses the answer if
its choice is better held out, by more than two standard errors of the paired difference, at 12.5 %
and at 25 % of the work, with the default sampler.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from compare import Scale, whole_search
from optuna.trial import FrozenTrial, TrialState
from table_command import run_command

from nas.search.multifidelity.expected import expected_maps
from nas.study.provenance import git_commit, versions
from search_spaces.layout import Layout
from workers.simulator.backend import simulate
from workers.simulator.tabular_benchmark import TabularBenchmark

SAMPLERS = ("random", "multifidelity")
SHARES = (0.06, 0.125, 0.25)
WORKERS, BEST, Z95 = 4, 5, 1.96
NOISE = 0.015  # between seeds of layouts that are not of attention alone


def held_out(table: TabularBenchmark, trial: FrozenTrial, seed: int) -> float:
    """Mean mAP of a layout's trainings that the search has not seen."""
    layout = Layout.parse(trial.user_attrs["layout"])
    shown = table.run_of(layout, seed)
    return statistics.fmean(run.map[-1] for run in table.runs_of(layout) if run is not shown)


def judged(table: TabularBenchmark, trials: list[FrozenTrial], seed: int) -> dict[str, Any] | None:
    """Both answers of a search as it stands, and how well they were known; None where nothing is
    complete or the model says nothing yet.
    """
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    known = expected_maps(trials, table.request["recipe"]["epochs"])
    board = sorted(done, key=lambda trial: -trial.values[0])
    if not board or not known:
        return None
    chosen = max(board[:BEST], key=lambda trial: known[trial.number][0])
    sound = [trial for trial in board if "C" in trial.user_attrs["layout"]]
    truths = np.array([held_out(table, trial, seed) for trial in sound])
    means, lows, highs = np.array([known[trial.number] for trial in sound]).reshape(-1, 3).T
    half = Z95 * np.hypot((highs - lows) / 2 / Z95, NOISE / 2**0.5)
    scores = np.array([trial.values[0] for trial in sound])
    return {
        "complete": len(done),
        "score": held_out(table, board[0], seed),
        "expected": held_out(table, chosen, seed),
        "score_errors": (scores - truths).tolist(),
        "expected_errors": (means - truths).tolist(),
        "inside": (np.abs(truths - means) < half).tolist(),
    }


def course(table: TabularBenchmark, sampler: str, seed: int) -> Iterator[dict[str, Any] | None]:
    """One search, judged at each share of the work."""
    simulation, total_s = None, Scale.of(table).total_s
    with tempfile.TemporaryDirectory() as folder:
        flags = whole_search(table, seed, folder) | {"search.sampler": sampler}
        for share in SHARES:
            until_s = share * total_s / WORKERS
            if simulation is None:
                simulation = simulate(table.spec(flags), table, WORKERS, until_s)
            simulation.run(until_s)
            yield judged(table, simulation.search.study.get_trials(deepcopy=False), seed)


def summary(searches: list[dict[str, Any]]) -> dict[str, float]:
    """Figures of searches at one share of the work, in points of mAP."""
    gains = [100 * (each["expected"] - each["score"]) for each in searches]
    errors = {
        name: np.concatenate([each[f"{name}_errors"] for each in searches])
        for name in ("score", "expected")
    }
    return {
        "searches": len(searches),
        "complete": statistics.median(each["complete"] for each in searches),
        "score_held_out": 100 * statistics.fmean(each["score"] for each in searches),
        "gain": statistics.fmean(gains),
        "gain_error": statistics.stdev(gains) / len(gains) ** 0.5,
        "score_rms": 100 * float(np.sqrt(np.mean(errors["score"] ** 2))),
        "expected_rms": 100 * float(np.sqrt(np.mean(errors["expected"] ** 2))),
        "inside": float(np.mean(np.concatenate([each["inside"] for each in searches]))),
    }


def work(arguments: argparse.Namespace) -> None:
    """Every sampler that is missing in the file."""
    table, out = TabularBenchmark.read(arguments.table), arguments.out
    content = json.loads(out.read_text()) if out and out.exists() else {"samplers": {}}
    for sampler in SAMPLERS:
        if sampler in content["samplers"]:
            continue
        courses = [list(course(table, sampler, seed)) for seed in range(arguments.seeds)]
        content["samplers"][sampler] = [
            {name: round(value, 3) for name, value in summary([c for c in at if c]).items()}
            for at in zip(*courses, strict=True)
        ]
        content |= {
            "command": f"python {' '.join(Path(word).name for word in sys.argv)}",
            "versions": versions(),
            "commit": git_commit(),
            "shares": SHARES,
        }
        if out:
            out.write_text(json.dumps(content, indent=1) + "\n")
    for sampler, rows in content["samplers"].items():
        for share, row in zip(SHARES, rows, strict=True):
            print(f"| {sampler} | {share:.1%} | {' | '.join(f'{v:.2f}' for v in row.values())} |")


if __name__ == "__main__":
    run_command(__doc__, work, seeds=60)
