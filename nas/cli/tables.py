"""Tables on the terminal. Scores in per cent, as papers print them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from nas.cli.runner import say
from nas.reports import BaselineRow, LeaderboardRow, SearchFindings, TrialRow
from nas.reports.metrics import BOX_PRECISIONS, METRIC
from nas.study.refusals import never_trained_text
from nas.study.roles import role_label
from nas.utils.formatting import (
    expected_text,
    gib_text,
    interval_text,
    percent,
    scaled_text,
    signed,
)
from nas.utils.shown_text import in_one_line

if TYPE_CHECKING:
    from nas.search.proxy.rank_correlation import Pair


class TextTable(Table):
    """A table whose cells and headings are text: nothing in them is markup."""

    def add_column(self, header: RenderableType = "", *args: Any, **options: Any) -> None:
        """Add a column, as Rich's own."""
        super().add_column(_text(header), *args, **options)

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """Add a row, as Rich's own."""
        super().add_row(*map(_text, cells), **options)


def _text(cell: RenderableType | None) -> Any:
    return Text(in_one_line(cell)) if isinstance(cell, str) else cell


def print_table(table: Table) -> None:
    """Print a table on stdout, 160 columns wide where that is no terminal.

    The title is a line of its own: Rich would fold it to the table's width.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    if table.title:
        console.print(Text(in_one_line(str(table.title)), style="italic"), soft_wrap=True)
        table.title = None
    console.print(table)


def print_findings(findings: SearchFindings) -> None:
    """Print what a search has found: leaderboard, baselines, and what was never trained."""
    rows = findings.leaderboard
    print_table(leaderboard_table(rows, f"Leaderboard of {findings.study}"))
    if findings.baselines:
        print_table(baselines_table(findings.baselines))
    if findings.baselines and not rows[0].replicates:
        say(
            "One seed each cannot tell a better backbone from a luckier one: --replicates 3 "
            "trains the best three again."
        )
    say(never_trained_text(findings.refusals))
    if findings.stop_reason:
        say(f"The search ended early: {findings.stop_reason}.")


def leaderboard_table(rows: Sequence[LeaderboardRow], title: str) -> Table:
    """Completed candidates, best first; columns of what is expected, of replicates, latency and the
    Pareto front only where a row has them.
    """
    again = any(row.within_noise is not None for row in rows)
    front = any(row.pareto is not None for row in rows)
    scores = [metric.heading for metric in BOX_PRECISIONS]
    expected = any(row.map_expected is not None for row in rows)
    scores[1:1] = ["again", "noise"] if again else []
    scores[1:1] = ["expected"] if expected else []
    names = ["#", "trial", "layout", *scores, "params M", "GMAC", "GiB", "train s"]
    timed = any(row.latency_ms is not None for row in rows)
    names += ["ms"] if timed else []
    names += ["FPS", "front"] if front else []
    table = _table(title, names, left=("layout", "noise"))
    for rank, row in enumerate(rows, start=1):
        cells = [percent(row.scores.get(metric.name)) for metric in BOX_PRECISIONS]
        cells[1:1] = [_again(row), "within" if row.within_noise else ""] if again else []
        if expected:
            cells[1:1] = [expected_text(row.map_expected, row.map_low, row.map_high)]
        cells += [
            scaled_text(row.params, 1e6, 2),
            scaled_text(row.flops, 1e9, 2),
            gib_text(row.memory_gib),
            scaled_text(row.train_s, 1, 0),
        ]
        cells += [scaled_text(row.latency_ms, 1, 1)] if timed else []
        cells += [scaled_text(row.fps, 1, 1), "yes" if row.pareto else ""] if front else []
        table.add_row(str(rank), str(row.number), row.layout, *cells)
    return table


def _table(title: str, names: Sequence[str], left: Collection[str]) -> Table:
    """An empty table; columns of numbers are aligned to the right."""
    table = TextTable(title=title)
    for name in names:
        table.add_column(name, justify="left" if name in left else "right")
    return table


def _again(row: LeaderboardRow) -> str:
    return f"{percent(row.map_again)} ({row.replicates})" if row.replicates else ""


def baselines_table(rows: Sequence[BaselineRow]) -> Table:
    """Published backbones at the same memory, beside the best candidate."""
    title = "The best candidate against published backbones at the same memory, mAP in per cent"
    names = ("baseline", "layout", "GiB", "trainings", "mAP", "deviation", "difference")
    columns = (*names, "95 % interval", "the best is")
    table = _table(title, columns, left=("baseline", "layout", "the best is"))
    for row in rows:
        table.add_row(
            row.name,
            row.layout,
            gib_text(row.memory_predicted_gib),
            str(row.trainings),
            percent(row.map),
            percent(row.deviation),
            signed(row.difference),
            interval_text(row.difference_low, row.difference_high),
            row.verdict,
        )
    return table


def trials_table(rows: Sequence[TrialRow], title: str) -> Table:
    """All trials of a study in the order of their numbers."""
    scores = [METRIC["map"], METRIC["map_50"]]
    names = ["trial", "layout", "role", "state", "epochs", *(metric.heading for metric in scores)]
    table = _table(title, [*names, "GiB", "reason"], left=("layout", "role", "state", "reason"))
    for row in rows:
        table.add_row(
            str(row.number),
            row.layout or "-",
            role_label(row.role, row.replicate),
            row.state,
            str(row.epochs),
            *(percent(row.scores.get(metric.name)) for metric in scores),
            gib_text(row.memory_gib),
            row.reason or ("the next command goes on with it" if row.state == "WAITING" else ""),
        )
    return table


def metrics_table(metrics: dict[str, Any], title: str) -> Table:
    """The figures of an evaluation in per cent, those of masks only where there are masks, then the
    mAP of each class.

    Args:
        metrics: `CocoMetrics` as a dictionary.
        title: of the table.
    """
    table = TextTable(title=title)
    table.add_column("figure")
    table.add_column("%", justify="right")
    for name, value in metrics.items():
        if name != "map_per_class" and (value is not None or "segm" not in name):
            table.add_row(name, percent(value))
    for name, value in metrics["map_per_class"].items():
        table.add_row(f"map of {name}", percent(value))
    return table


def space_table(preview: dict[str, Any]) -> Table:
    """What a search would choose from, as a table of words and values.

    Args:
        preview: see `nas.search.budget.preview`, with `baselines`.
    """
    table = TextTable(title=f"Search {preview['study']}", show_header=False)
    table.add_column("what")
    table.add_column("value", overflow="fold")
    low, middle, high = (
        gib_text(preview[f"memory_predicted_gib_{name}"]) for name in ("min", "median", "max")
    )
    table.add_row("space", preview["space"])
    table.add_row(
        "layouts",
        f"{preview['layouts']}, of which {preview['layouts_sampled']} were tried at random for "
        "this table",
    )
    verb = "fit" if preview["budget_mode"] == "cap" else "can be made to use it"
    table.add_row("memory", f"{preview['budget']}; {percent(preview['share_that_fits'])} % {verb}")
    table.add_row("predicted memory", f"{low} to {high} GiB, median {middle}")
    table.add_row("largest batch", " x ".join(map(str, preview["largest_batch_shape"])))
    table.add_row(
        "images", f"{preview['train_images']} to train on, {preview['val_images']} to score"
    )
    table.add_row("classes", str(preview["classes"]))
    table.add_row("trials", str(preview["trials"]))
    for baseline in preview["baselines"]:
        table.add_row(
            f"baseline {baseline['name']}",
            f"{baseline['layout']}, {gib_text(baseline['memory_predicted_gib'])} GiB",
        )
    return table


def proxy_table(pairs: Sequence[Pair], title: str) -> Table:
    """The layouts of a check of the proxy, with what both trainings made of them."""
    from nas.search.proxy.rank_correlation import ranks

    names = ("layout", "GMAC", "proxy mAP", "rank", "full mAP", "rank", "proxy s", "full s")
    table = _table(title, names, left=("layout",))
    proxy_ranks = ranks([pair.proxy_map for pair in pairs])
    full_ranks = ranks([pair.full_map for pair in pairs])
    for pair, proxy_rank, full_rank in zip(pairs, proxy_ranks, full_ranks, strict=True):
        table.add_row(
            pair.layout,
            scaled_text(pair.flops, 1e9, 2),
            percent(pair.proxy_map),
            str(proxy_rank),
            percent(pair.full_map),
            str(full_rank),
            scaled_text(pair.proxy_s, 1, 0),
            scaled_text(pair.full_s, 1, 0),
        )
    return table


def patterns_table(rows: list[dict[str, Any]]) -> Table:
    """The layout of each pattern that is nearest to the budget.

    Args:
        rows: `patterns` of `nas.search.budget.preview`.
    """
    table = TextTable(
        title="At equal memory, the layout of each pattern that is nearest to the budget"
    )
    for name in ("pattern", "layout", "GiB", "deviation", ""):
        table.add_column(name, justify="right" if name in ("GiB", "deviation") else "left")
    for row in rows:
        verdict = "" if row["solved"] else "not within the tolerance: never suggested"
        table.add_row(
            row["pattern"],
            row["layout"],
            gib_text(row["memory_predicted_gib"]),
            f"{100 * row['deviation']:+.1f} %",
            verdict,
        )
    return table
