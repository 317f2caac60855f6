"""`nas profile`: what layouts cost, side by side."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nas.cli import options
from nas.cli.console import gib_text, given, parse_settings, print_json
from search_spaces.layout import Layout


def profile(
    layouts: Annotated[list[str], typer.Argument(metavar="LAYOUT...", help="For example C2-C2-T12-T4.")],
    detector: options.Detector = None,
    classes: Annotated[int, typer.Option(min=1, help="Categories, the background not counted.")] = 80,
    image_size: Annotated[
        int, typer.Option(min=32, help="Short side of the images, pixels; the long side is 1333/800 of it.")
    ] = 800,
    images: Annotated[int, typer.Option(min=1, help="Images per GPU.")] = 4,
    settings: options.Settings = None,
    as_json: options.Json = False,
) -> None:
    """Print parameters, multiply-adds and predicted training memory of layouts."""
    parsed = [Layout.parse(text) for text in layouts]
    from nas.spec import ASPECT_LIMIT, LARGEST_STRIDE, DetectorSpec, validated

    keys = given({"detector.name": detector}) | parse_settings(settings or [])
    spec = validated(DetectorSpec, {key.removeprefix("detector."): value for key, value in keys.items()})
    height, width = (-(-side // LARGEST_STRIDE) * LARGEST_STRIDE for side in (image_size, int(image_size * ASPECT_LIMIT)))
    rows = [_profile(layout, spec, classes, (images, 3, height, width)) for layout in parsed]
    if as_json:
        print_json(rows)
    else:
        _print(rows)


def _profile(layout: Layout, spec: Any, classes: int, batch_shape: tuple[int, int, int, int]) -> dict[str, Any]:
    from nas.cost import PAPER_RULE, RULE, count_cost
    from nas.memory import predict_memory
    from nas.units import gib

    cost = count_cost(layout, spec, classes, batch_shape[2:])
    memory = predict_memory(layout, spec, classes, batch_shape)
    return {
        "layout": str(layout),
        "layout_id": layout.layout_id,
        "detector": spec.name,
        "classes": classes,
        "params": cost.params,
        "backbone_params": cost.backbone_params,
        "flops": cost.flops,
        "flops_rule": RULE,
        "paper_flops": cost.paper_flops,
        "paper_flops_rule": PAPER_RULE,
        "batch_shape": list(batch_shape),
        "memory_predicted_gib": gib(memory.peak_bytes),
        "memory_by_part_gib": {part: gib(size) for part, size in memory.parts().items()},
        "memory_peak_moment": memory.moment,
    }


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from nas.cli.tables import print_table

    shape = "x".join(map(str, rows[0]["batch_shape"]))
    title = f"{rows[0]['detector']}, {rows[0]['classes']} classes, batch {shape}, fp32, AdamW; GiB predicted"
    table = Table(title=title)
    table.add_column("layout")
    parts = list(rows[0]["memory_by_part_gib"])
    for name in ("params M", "backbone M", "GMAC", "paper G", "GiB", *parts):
        table.add_column(name, justify="right")
    for row in rows:
        counts = [f"{row[name] / 1e6:.4f}" for name in ("params", "backbone_params")]
        counts += [f"{row[name] / 1e9:.2f}" for name in ("flops", "paper_flops")]
        memory = [gib_text(row["memory_predicted_gib"]), *(gib_text(row["memory_by_part_gib"][part]) for part in parts)]
        table.add_row(row["layout"], *counts, *memory)
    print_table(table)
    print(f"GMAC: {rows[0]['flops_rule']}; one image.\npaper G: {rows[0]['paper_flops_rule']}; one image.")
