"""Tables on the terminal. Scores in per cent, as papers print them."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nas.study.roles import role_label
from nas.utils.formatting import gib_text, interval_text, percent, signed


def print_table(table: Table) -> None:
    """On stdout; as wide as it needs where nobody looks. The title is a line of its own: Rich folds
    it to the table's width.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    if table.title:
        console.print(Text(str(table.title), style="italic"), soft_wrap=True)
        table.title = None
    console.print(table)


def print_findings(summary: dict[str, Any]) -> None:
    """What a search has found, as `nas submit --json` prints it."""
    rows, refusals = summary["leaderboard"], summary["refusals"]
    print_table(leaderboard_table(rows, f"Leaderboard of {summary['study']}"))
    if summary["baselines"]:
        print_table(baselines_table(summary["baselines"]))
    if summary["baselines"] and not rows[0]["replicates"]:
        print(
            "One seed each cannot tell a better backbone from a luckier one: --replicates 3 "
            "trains the best three again."
        )
    by_prediction = refusals["over_budget"] + refusals["unequal"]
    print(
        f"Never trained: {by_prediction} that the prediction refused, {refusals['repeated']} that "
        "had been trained."
    )
    if summary["stop_reason"]:
        print(f"The search ended early: {summary['stop_reason']}.")


def leaderboard_table(rows: list[dict[str, Any]], title: str) -> Table:
    """Completed candidates, best first."""
    table = Table(title=title)
    names = [
        "#",
        "trial",
        "layout",
        "mAP",
        "mAP50",
        "mAP75",
        "small",
        "medium",
        "large",
        "params M",
        "GMAC",
        "GiB",
        "train s",
    ]
    front = any("pareto" in row for row in rows)
    again = any(row["within_noise"] is not None for row in rows)
    names[4:4] = ["again", "noise"] if again else []
    for name in (*names, "FPS", "front") if front else names:
        table.add_column(name, justify="left" if name in ("layout", "noise") else "right")
    for place, row in enumerate(rows, start=1):
        scores = [
            percent(row.get(name))
            for name in ("map", "map_50", "map_75", "map_small", "map_medium", "map_large")
        ]
        scores[1:1] = [_again(row), "within" if row["within_noise"] else ""] if again else []
        memory = row.get("memory_peak_gib") or row.get("memory_predicted_gib")
        cost = [
            f"{row['params'] / 1e6:.2f}",
            f"{row['flops'] / 1e9:.2f}",
            gib_text(memory),
            f"{row['train_s']:.0f}",
        ]
        if front:
            cost += [f"{row['fps']:.1f}", "yes" if row["pareto"] else ""]
        table.add_row(str(place), str(row["number"]), row["layout"], *scores, *cost)
    return table


def _again(row: dict[str, Any]) -> str:
    return f"{percent(row['map_again'])} ({row['replicates']})" if row["replicates"] else ""


def baselines_table(rows: list[dict[str, Any]]) -> Table:
    """Published backbones at the same memory, beside the best candidate."""
    table = Table(
        title="The best candidate against published backbones at the same memory, mAP in per cent"
    )
    for name in (
        "baseline",
        "layout",
        "GiB",
        "trainings",
        "mAP",
        "deviation",
        "difference",
        "95 % interval",
        "the best is",
    ):
        table.add_column(
            name, justify="left" if name in ("baseline", "layout", "the best is") else "right"
        )
    for row in rows:
        interval = interval_text(row["difference_low"], row["difference_high"])
        table.add_row(
            row["name"],
            row["layout"],
            gib_text(row["memory_predicted_gib"]),
            str(row["trainings"]),
            percent(row["map"]),
            percent(row["deviation"]),
            signed(row["difference"]),
            interval,
            row["verdict"],
        )
    return table


def trials_table(rows: list[dict[str, Any]], title: str) -> Table:
    """All trials of a study in the order of their numbers."""
    table = Table(title=title)
    for name in ("trial", "layout", "role", "state", "epochs", "mAP", "mAP50", "GiB", "reason"):
        table.add_column(
            name, justify="left" if name in ("layout", "role", "state", "reason") else "right"
        )
    for row in rows:
        memory = row.get("memory_peak_gib") or row.get("memory_predicted_gib")
        reason = row.get("fail_reason") or row.get("infeasible_reason") or ""
        scores = [percent(row.get("map")), percent(row.get("map_50"))]
        epochs = str(row.get("epochs", 0))
        role = role_label(row.get("role", ""), row.get("replicate", 0))
        cells = (
            str(row["number"]),
            row.get("layout", "-"),
            role,
            row["state"],
            epochs,
            *scores,
            gib_text(memory),
            reason,
        )
        table.add_row(*cells)
    return table


def metrics_table(metrics: dict[str, Any], title: str) -> Table:
    """COCO's figures, those of masks only where there are masks, then the classes."""
    table = Table(title=title)
    table.add_column("figure")
    table.add_column("%", justify="right")
    for name, value in metrics.items():
        if name != "map_per_class" and (value is not None or "segm" not in name):
            table.add_row(name, percent(value))
    for name, value in metrics["map_per_class"].items():
        table.add_row(f"map of {name}", percent(value))
    return table


def space_table(preview: dict[str, Any]) -> Table:
    """What a search would choose from."""
    table = Table(title=f"Search {preview['study']}", show_header=False)
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


def proxy_table(check: dict[str, Any], title: str) -> Table:
    """The layouts of a check of the proxy in the order of their FLOPs, with what both trainings
    made of them.
    """
    from nas.search.proxy.rank_correlation import ranks

    pairs = check["pairs"]
    places = {name: ranks([pair[name] for pair in pairs]) for name in ("proxy_map", "full_map")}
    table = Table(title=title)
    for name in ("layout", "GMAC", "proxy mAP", "rank", "full mAP", "rank", "proxy s", "full s"):
        table.add_column(name, justify="left" if name == "layout" else "right")
    for pair, proxy_rank, full_rank in zip(
        pairs, places["proxy_map"], places["full_map"], strict=True
    ):
        scores = (
            percent(pair["proxy_map"]),
            str(proxy_rank),
            percent(pair["full_map"]),
            str(full_rank),
        )
        seconds = (f"{pair['proxy_s']:.0f}", f"{pair['full_s']:.0f}")
        table.add_row(pair["layout"], f"{pair['flops'] / 1e9:.2f}", *scores, *seconds)
    return table


def patterns_table(rows: list[dict[str, Any]]) -> Table:
    """What equal memory makes of each pattern."""
    table = Table(title="At equal memory, the layout of each pattern that is nearest to the budget")
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
