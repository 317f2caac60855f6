"""What bounds any search on a table of trainings: how far layouts can be predicted, and what
choosing by single runs costs.

    python benchmarks/tabular/bound.py benchmarks/tabular/table-bccd.json

The prediction is a ridge regression on what a layout consists of: its pattern, the depth of each
stage of each kind, its channels, as indicators. Each layout is predicted by a fit to all others
(leave-one-out, in closed form), which a search never
has: `compare.py --samplers informed` trains layouts in the order of these predictions. The ceiling
of R2 is the share of the variance of the means that is not the seeds' own; no prediction of layouts
comes above it.

The floor is the regret of training every layout once and answering with the best score: whatever
the order, choosing by single runs ends there. `known order` trains from the best mean downwards,
which only an oracle can. With the three best trained again, as `search.replicates` does, the floor
is that of answering with the best of the three by their other runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from noise import score, variance_parts
from scipy.stats import spearmanr

from nas.errors import UserError
from nas.study.leaderboard import TOP
from search_spaces.layout import Layout
from workers.simulator.tabular_benchmark import TabularBenchmark

PENALTIES = tuple(10.0**power for power in np.arange(-2, 2.1, 0.5))
TRAINED = (1, 5, 10, 20, 50)  # layouts, for regrets


def features(layouts: Sequence[Layout]) -> np.ndarray:
    """(layouts, indicators): pattern, kind and depth of each stage, channels; the first column is
    1.
    """
    names = [
        [
            layout.pattern,
            *(f"{place} {stage.kind}{stage.depth}" for place, stage in enumerate(layout.stages)),
            f"width {layout.widths[0]}",
        ]
        for layout in layouts
    ]
    known = sorted({name for each in names for name in each})
    return np.array([[1.0, *(float(name in each) for name in known)] for each in names])


def left_out(x: np.ndarray, y: np.ndarray, weights: np.ndarray, penalty: float) -> np.ndarray:
    """Of each row the prediction by a weighted ridge regression on all others; the first column is
    not penalised.

    With H = X (X' W X + P)^-1 X' W the residual without a row is (y - H y) / (1 - diag H), as for
    ordinary least squares.
    """
    penalties = penalty * np.eye(x.shape[1])
    penalties[0, 0] = 0.0
    hat = x @ np.linalg.solve(x.T @ (weights[:, None] * x) + penalties, x.T * weights)
    return y - (y - hat @ y) / (1 - np.diag(hat))


def predictions(table: TabularBenchmark) -> tuple[dict[str, float], float]:
    """Layout to what the others say its mean mAP is, with the penalty that predicts best, and that
    penalty.
    """
    names = list(table.by_layout)
    x = features([Layout.parse(name) for name in names])
    y = np.array([table.mean_map(Layout.parse(name)) for name in names])
    weights = np.array([float(len(runs)) for runs in table.by_layout.values()])
    found = {penalty: left_out(x, y, weights, penalty) for penalty in PENALTIES}
    best = min(found, key=lambda penalty: float(weights @ (found[penalty] - y) ** 2))
    return dict(zip(names, map(float, found[best]), strict=True)), best


def informed_order(table: TabularBenchmark) -> list[str]:
    """All layouts, the best prediction first."""
    predicted, _ = predictions(table)
    return sorted(predicted, key=predicted.__getitem__, reverse=True)


def regrets(table: TabularBenchmark, order: Sequence[str], seeds: int) -> list[float]:
    """Median regret over the seeds after 1, 2 ... layouts of `order`, each trained once, the answer
    the best score so far.
    """
    means = {name: table.mean_map(Layout.parse(name)) for name in order}
    best, courses = max(means.values()), []
    for seed in range(seeds):
        reached, answer, course = -1.0, order[0], []
        for name in order:
            if (now := score(table.run_of(Layout.parse(name), seed))) > reached:
                reached, answer = now, name
            course.append(best - means[answer])
        courses.append(course)
    return [statistics.median(at) for at in zip(*courses, strict=True)]


def again(table: TabularBenchmark, name: str, seed: int) -> float:
    """Mean mAP of the runs of a layout that a search with this seed was not shown; of its own where
    there is no other.
    """
    shown = table.run_of(Layout.parse(name), seed)
    return statistics.fmean(
        [score(run) for run in table.by_layout[name] if run is not shown] or [score(shown)]
    )


def floor_again(table: TabularBenchmark, seeds: int) -> float | None:
    """Median regret after every layout was trained once and the best `TOP` of them with the table's
    other seeds, which choose; None where a layout has no other.
    """
    means, answers = {name: table.mean_map(Layout.parse(name)) for name in table.by_layout}, []
    if any(len(runs) < 2 for runs in table.by_layout.values()):
        return None
    for seed in range(seeds):
        shown = {name: score(table.run_of(Layout.parse(name), seed)) for name in means}
        top = sorted(means, key=lambda name: -shown[name])[:TOP]
        answers.append(
            max(means.values()) - means[max(top, key=lambda name: again(table, name, seed))]
        )
    return statistics.median(answers)


def report(table: TabularBenchmark, seeds: int) -> dict[str, Any]:
    """All figures; mAP as fractions.

    Raises:
        StudyError: see `noise.report`.
    """
    predicted, penalty = predictions(table)
    means = {name: table.mean_map(Layout.parse(name)) for name in table.by_layout}
    within, between = variance_parts(
        [[score(run) for run in runs] for runs in table.by_layout.values()]
    )
    own = within * statistics.fmean(1 / len(runs) for runs in table.by_layout.values())
    truth, guess = (np.array([values[name] for name in means]) for values in (means, predicted))
    by_mean = sorted(means, key=means.__getitem__, reverse=True)
    courses = {
        "informed": regrets(table, informed_order(table), seeds),
        "known order": regrets(table, by_mean, seeds),
    }
    return {
        "layouts": len(means),
        "seeds": seeds,
        "penalty": round(penalty, 4),
        "r2_left_out": round(
            1 - float(np.sum((truth - guess) ** 2) / np.sum((truth - truth.mean()) ** 2)), 3
        ),
        "r2_ceiling": round(between / (between + own), 3),
        "spearman_left_out": round(float(spearmanr(truth, guess).statistic), 3),
        "floor_again": floor_again(table, seeds),
        "first_predicted": informed_order(table)[:5],
        "regret_median": {
            name: {
                str(count): round(course[count - 1], 5)
                for count in (*TRAINED, len(means))
                if count <= len(means)
            }
            for name, course in courses.items()
        },
    }


def text(found: dict[str, Any]) -> str:
    """For people, in per cent."""
    lines = [
        f"{found['layouts']} layouts, each predicted from all others: R2 {found['r2_left_out']} "
        f"(noise leaves {found['r2_ceiling']}), "
        f"Spearman {found['spearman_left_out']}",
        f"predicted to be the best: {', '.join(found['first_predicted'])}",
        f"median regret after so many layouts, each trained once, over {found['seeds']} seeds, in "
        "per cent of mAP:",
    ]
    for name, course in found["regret_median"].items():
        lines.append(
            f"{name:12}"
            + "".join(f"{count:>6}: {100 * regret:.2f}" for count, regret in course.items())
        )
    if found["floor_again"] is not None:
        lines.append(
            f"every layout once and the best {TOP} with the other seeds: "
            f"{100 * found['floor_again']:.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    arguments = parser.parse_args()
    try:
        found = report(TabularBenchmark.read(arguments.table), arguments.seeds)
    except UserError as error:
        parser.exit(2, f"error: {error}\n")
    print(text(found))
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
