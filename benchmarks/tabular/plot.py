"""Draws a comparison of searches, and prints it as a Markdown table.

    python benchmarks/tabular/plot.py benchmarks/results/search-bccd.json --out
    docs/figures/search-bccd.svg

A panel for each pruner: the median over the seeds of the regret of the best candidate so far,
against the seconds that workers have spent; bands are from the first to the third quartile.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from compare import INFORMED, SAMPLERS, text
from matplotlib.axes import Axes

# Okabe and Ito's colours, which colour-blind people tell apart; the lines differ as well.
STYLES = dict(
    zip(
        (*SAMPLERS, INFORMED),
        (
            ("#000000", "-"),
            ("#0072B2", "-"),
            ("#D55E00", "--"),
            ("#CC79A7", "-"),
            ("#009E73", "-."),
            ("#999999", ":"),
        ),
        strict=True,
    )
)


def draw(found: dict[str, Any], out: Path) -> None:
    """The figure, in the format of the file's suffix."""
    pruners = list(dict.fromkeys(row["pruner"] for row in found["rows"]))
    columns = min(3, len(pruners))
    lines = -(-len(pruners) // columns)
    plt.rcParams.update({"svg.hashsalt": "search", "svg.fonttype": "path", "font.size": 8})
    figure, axes = plt.subplots(
        lines,
        columns,
        figsize=(3.2 * columns, 2.5 * lines),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for place, panel in zip(
        axes.flat, [*pruners, *[None] * (lines * columns - len(pruners))], strict=True
    ):
        if panel is None:
            place.set_axis_off()
        else:
            _panel(place, found, panel)
    handles = {line.get_label(): line for place in axes.flat for line in place.get_lines()}
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=len(handles),
        frameon=False,
    )
    figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)
    plt.close(figure)


def _panel(place: Axes, found: dict[str, Any], pruner: str) -> None:
    seconds = [share * found["total_s"] for share in found["shares"]]
    for row in found["rows"]:
        if row["pruner"] != pruner:
            continue
        colour, line = STYLES[row["sampler"]]
        low, middle, high = (
            [100 * each for each in row[f"regret_{name}"]]
            for name in ("quarter", "median", "three_quarters")
        )
        place.fill_between(seconds, low, high, color=colour, alpha=0.12, linewidth=0)
        place.plot(seconds, middle, line, color=colour, linewidth=1.2, label=row["sampler"])
    place.set(title=f"pruner: {pruner}", ylim=(0, _top(found)), xlim=(0, seconds[-1]))
    place.grid(alpha=0.3)
    place.label_outer()
    place.set_xlabel("seconds of workers")
    place.set_ylabel("regret, points of mAP")


def _top(found: dict[str, Any]) -> float:
    """Points of mAP above which there are only the first tenth of the curves."""
    return max(
        100 * row["regret_three_quarters"][len(found["shares"]) // 10] for row in found["rows"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path, help="write the figure here, SVG or PNG")
    arguments = parser.parse_args()
    found = json.loads(arguments.results.read_text())
    print(text(found))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        draw(found, arguments.out)


if __name__ == "__main__":
    main()
