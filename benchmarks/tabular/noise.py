"""What the seeds alone do in a table of trainings: it bounds what any search can claim.

    python benchmarks/tabular/noise.py benchmarks/tabular/table-bccd.json

The spread between seeds is the pooled standard deviation of the last mAP of layouts with several
seeds, the spread between layouts what the variance of their means has beyond that (one-way analysis
of variance, random effects, unequal numbers, method of moments). A layout is within noise of the
best where the difference of the two means is below 1.96 standard errors; there are more, because
the best was chosen among many noisy means. Ranks after an epoch are compared with the last by
Kendall's tau-b.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy.stats import kendalltau

from nas.errors import StudyError
from search_spaces.layout import Layout
from workers.simulator.tabular_benchmark import RecordedRun, TabularBenchmark

Z95 = 1.96


def variance_parts(groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Variance within groups and variance between them, estimated from the mean squares; the second
    is never below 0.
    """
    counts = [len(group) for group in groups]
    total, means = sum(counts), [statistics.fmean(group) for group in groups]
    grand = sum(map(math.fsum, groups)) / total
    within = sum(
        (value - mean) ** 2 for group, mean in zip(groups, means, strict=True) for value in group
    )
    within /= total - len(groups)
    between = sum(
        count * (mean - grand) ** 2 for count, mean in zip(counts, means, strict=True)
    ) / (len(groups) - 1)
    size = (total - sum(count**2 for count in counts) / total) / (len(groups) - 1)
    return within, max(0.0, (between - within) / size)


def report(table: TabularBenchmark) -> dict[str, Any]:
    """All figures; mAP as fractions.

    Raises:
        StudyError: nothing says what noise is.
    """
    if not any(len(runs) > 1 for runs in table.by_layout.values()):
        raise StudyError("no layout of the table has several seeds")
    scores = {layout: [score(run) for run in runs] for layout, runs in table.by_layout.items()}
    within, between = variance_parts(list(scores.values()))
    means = {layout: statistics.fmean(values) for layout, values in scores.items()}
    best = max(means, key=means.__getitem__)
    return {
        "layouts": len(scores),
        "runs": len(table.runs),
        "with_several_seeds": sum(len(v) > 1 for v in scores.values()),
        "failed": sum(run.fail_reason is not None for run in table.runs),
        "seed_deviation": round(math.sqrt(within), 4),
        "layout_deviation": round(math.sqrt(between), 4),
        "share_between_layouts": round(between / (between + within), 3),
        "map_min": round(min(means.values()), 4),
        "map_median": round(statistics.median(means.values()), 4),
        "map_max": round(means[best], 4),
        "best": best,
        "seeds_of_best": len(scores[best]),
        "within_noise_of_best": len(near_best(table)) - 1,
        "patterns": _patterns(means),
        "epochs": _epochs(table),
        "hours": round(sum(run.elapsed_s[-1] for run in table.runs if run.elapsed_s) / 3600, 2),
    }


def near_best(table: TabularBenchmark) -> set[str]:
    """The best layout and those within noise of it."""
    scores = {layout: [score(run) for run in runs] for layout, runs in table.by_layout.items()}
    within, _ = variance_parts(list(scores.values()))
    means = {layout: statistics.fmean(values) for layout, values in scores.items()}
    best = max(means, key=means.__getitem__)

    def margin(layout: str) -> float:
        return Z95 * math.sqrt(within * (1 / len(scores[layout]) + 1 / len(scores[best])))

    return {best, *(layout for layout in means if means[best] - means[layout] < margin(layout))}


def score(run: RecordedRun) -> float:
    """The last mAP; 0 where the training failed."""
    return 0.0 if run.fail_reason else run.map[-1]


def _patterns(means: dict[str, float]) -> dict[str, dict[str, Any]]:
    """Layouts of each pattern: how many, their mean, their best."""
    found: dict[str, list[float]] = {}
    for layout, mean in means.items():
        found.setdefault(Layout.parse(layout).pattern, []).append(mean)
    return {
        pattern: {
            "layouts": len(values),
            "map_mean": round(statistics.fmean(values), 4),
            "map_max": round(max(values), 4),
        }
        for pattern, values in sorted(found.items())
    }


def _epochs(table: TabularBenchmark) -> list[dict[str, Any]]:
    """For each epoch how well it ranks the layouts as the last one does, of the same run and of
    another seed's.
    """
    firsts = [
        (runs[0], runs[1:])
        for runs in table.by_layout.values()
        if not any(run.fail_reason for run in runs)
    ]
    rows = []
    for epoch in range(max(len(run.map) for run in table.runs)):
        done = [(first, others) for first, others in firsts if len(first.map) > epoch]
        own = kendalltau(
            [first.map[epoch] for first, _ in done], [first.map[-1] for first, _ in done]
        )
        pairs = [
            (first.map[epoch], other.map[-1]) for first, others in done for other in others[:1]
        ]
        others_tau = kendalltau(*zip(*pairs, strict=True)).statistic if len(pairs) > 1 else math.nan
        rows.append(
            {
                "epoch": epoch + 1,
                "tau": _rounded(own.statistic),
                "tau_other_seed": _rounded(others_tau),
            }
        )
    return rows


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 3)


def text(found: dict[str, Any]) -> str:
    """For people, in per cent."""
    lines = [
        f"{found['layouts']} layouts, {found['runs']} runs ({found['hours']} h), "
        f"{found['with_several_seeds']} layouts with "
        f"several seeds, {found['failed']} runs failed",
        f"mAP {_percent(found['map_min'])} to {_percent(found['map_max'])}, median "
        f"{_percent(found['map_median'])}",
        f"standard deviation between seeds {_percent(found['seed_deviation'])}, between layouts "
        f"{_percent(found['layout_deviation'])}: layouts make "
        f"{100 * found['share_between_layouts']:.0f} % of the variance",
        f"best {found['best']} (seeds: {found['seeds_of_best']}), {found['within_noise_of_best']} "
        "others within noise of it",
    ]
    lines += [
        f"{pattern}: {row['layouts']} layouts, mean {_percent(row['map_mean'])}, best "
        f"{_percent(row['map_max'])}"
        for pattern, row in found["patterns"].items()
    ]
    lines += [
        f"epoch {row['epoch']}: tau with the last one {row['tau']}, with the last one of another "
        f"seed {row['tau_other_seed']}"
        for row in found["epochs"]
    ]
    return "\n".join(lines)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    arguments = parser.parse_args()
    found = report(TabularBenchmark.read(arguments.table))
    print(text(found))
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
