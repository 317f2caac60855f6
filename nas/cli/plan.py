"""`nas plan`: what a data set decides of its own training, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import options
from nas.cli.runner import print_json, say

if TYPE_CHECKING:
    from nas.cli.tables import TextTable
    from nas.config.spec import SearchSpec
    from nas.planning.fingerprint import Fingerprint
    from nas.planning.plan import Plan


@options.request_options(options.SPACE, *options.TRAINING)
def plan(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Folder with images and annotations, or its URL.")
    ],
    *,
    flags: dict[str, Any],
    as_json: options.Json = False,
) -> None:
    """Show what a data set decides of its own training, and why; nothing is trained.

    `nas-submit` and `nas train` use the same decisions. A flag, or a key of a request, comes before
    them.
    """
    from nas.api.requests import checked_spec

    spec = checked_spec(None, {**flags, "data.root": data})
    from nas.api.planning import plan_request
    from nas.cli.progress import ImageProgress
    from nas.cli.tables import print_table

    with ImageProgress() as progress:
        found = plan_request(spec, progress.on_image)
    if as_json:
        print_json(found.to_dict())
        return
    if not found.values():
        print_table(_data_table(found.data))
        say(f"Nothing is decided from them: {_why_nothing(spec)}.")
    print_plan(found)


def _why_nothing(spec: SearchSpec) -> str:
    return f"the recipe {spec.recipe.name!r} sets every key; --recipe auto follows the data"


def print_plan(found: Plan) -> None:
    """Print the fingerprint and the decisions, where there are any, and the warnings."""
    from nas.cli.tables import print_table

    if found.values():
        print_table(_data_table(found.data))
        print_table(_decisions_table(found))
        print_table(_levels_table(found))
    for warning in found.warnings:
        say(f"Warning: {warning}.")


def _data_table(data: Fingerprint) -> TextTable:
    from nas.cli.tables import TextTable

    table = TextTable(title=f"{data.images} training images, {data.boxes} objects")
    table.add_column("")
    for name in ("5 %", "25 %", "half", "75 %", "95 %"):
        table.add_column(name, justify="right")
    rows = {
        "short side, pixels": [f"{x:.0f}" for x in data.short_sides],
        "side of an object, pixels": [f"{x:.0f}" for x in data.object_sides],
        "the same, % of the short side": [f"{100 * x:.1f}" for x in data.object_shares],
        "height over width": [f"{x:.2f}" for x in data.aspect_ratios],
        "objects an image": [f"{x:.0f}" for x in data.objects_per_image],
    }
    for name, row in rows.items():
        table.add_row(name, *row)
    return table


def _levels_table(found: Plan) -> TextTable:
    from nas.cli.tables import TextTable

    table = TextTable(title="Objects by level of the pyramid")
    for name in ("stride, pixels", "objects", "side in cells, half"):
        table.add_column(name, justify="right")
    for level in found.levels:
        cells = "" if level.cells is None else f"{level.cells:.1f}"
        table.add_row(str(level.stride), str(level.objects), cells)
    return table


def _decisions_table(found: Plan) -> TextTable:
    from nas.cli.tables import TextTable

    table = TextTable(title="Decided from them")
    for name in ("key", "value", "why"):
        table.add_column(name, overflow="fold")
    for decision in found.decisions:
        table.add_row(decision.key, str(decision.value), decision.reason)
    return table
